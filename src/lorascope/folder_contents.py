"""What a folder holds that is not what a command needs, so that its refusal can name it."""

from __future__ import annotations

from pathlib import Path

from lorascope.config import read_yaml
from lorascope.errors import InputError
from lorascope.locking import contents

AUDIT = "audit"
# What a reading is known by.
READING = "read.json"
# A run of any study that has results.
_ANY = "run"
# By a file that nothing else has, those that may stand beside another's first.
_MARKS = {
    READING: "a reading of one adapter (its page is index.html)",
    "resemblance.json": "adapters held against one another",
    "comparison.json": "a comparison",
    "scan.jsonl": "a scan of adapters",
    "adapter_config.json": "an adapter",
    "latent_adapter.safetensors": "a latent adapter",
    "sae_weights.safetensors": "a dictionary",
    "config.json": "a model",
}
# Studies whose files do not say what they are, by a setting that no other has.
_BY_SETTING = {
    "sites": AUDIT,
    "training": "training of adapters",
    "data": "measurement of a behaviour",
    "topic": "making of a behaviour set",
}


def require_finished(folder: Path, wanted: str = _ANY) -> None:
    """Refuse a folder without results of a study, or with those of another kind.

    Args:
        wanted: the kind, as `workflow` in its study file says; by default any.

    Raises:
        InputError: says what the folder holds instead.
    """
    kind = study_in(folder)
    fits = wanted in (_ANY, kind)
    # Results that nothing says more of are looked at by whoever reads them.
    if (folder / "results").is_dir() and (fits or not (kind or _marked(folder))):
        return
    if kind and fits:
        raise InputError(
            f"{folder}: holds {_one(kind)} that is not finished; go on with it by the same command "
            f"and --out {folder}"
        )
    raise InputError(f"{folder}: {held(folder)}; give the folder of a finished {wanted}")


def study_in(folder: Path) -> str:
    """Of which kind the study of a run folder is; empty where it holds none that can be read."""
    file = folder / "study.yaml"
    if not file.is_file():
        return ""
    try:
        settings = read_yaml(file)
    except InputError:
        return ""
    named = settings.get("workflow")
    return str(named or next((k for s, k in _BY_SETTING.items() if s in settings), ""))


def held(folder: Path) -> str:
    """What a folder is or holds, for a refusal: `holds a scan of adapters`."""
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "is a file"
    if kind := study_in(folder):
        return f"holds {_one(kind)}"
    if found := _marked(folder):
        return f"holds {found}"
    return "holds no run" if contents(folder) else "is empty"


def _marked(folder: Path) -> str:
    return next((what for file, what in _MARKS.items() if (folder / file).is_file()), "")


def _one(kind: str) -> str:
    """`an audit`, `a latent study`."""
    known = {"adapt": "a study of adapt", "latent": "a latent study", "evaluate": "an evaluation"}
    return known.get(kind) or f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"
