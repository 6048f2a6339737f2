"""Options that several commands share, and the settings that options and study files give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from lorascope.errors import InputError, did_you_mean

# Names of their packages too.
_TRACKERS = ("tensorboard", "wandb")
WorkflowName = Literal["audit", "adapt", "latent", "evaluate"]
StudyFile = Annotated[Path | None, typer.Argument(help="Study file; or use the options.")]
BaseModel = Annotated[str | None, typer.Option(help="Base model: hub id, folder or GGUF file.")]
Texts = Annotated[list[str] | None, typer.Option(help="File, folder or dataset id. Repeatable.")]
Force = Annotated[
    bool, typer.Option("--force", help="Accept files made for another model or site.")
]
Redo = Annotated[
    bool, typer.Option("--redo", help="Settings have changed: redo what depends on them.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder; the same one resumes.")]
BaseDictionary = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        help="Base dictionary to bring along instead of training one: site=address. Repeatable.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Only check this command and print what it would cost.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, no progress.")]
Workers = Annotated[
    int,
    typer.Option("--workers", min=1, help="Make stages in so many processes at once."),
]
FittingWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Make stages in so many processes at once; by default one a processor, at most four, "
        "as far as memory goes, where that saves time.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads of each; the cores shared out by default."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Make stages on a Ray cluster: auto, or its address."
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Write the curves of what is trained to RUN/logs: tensorboard or wandb (offline).",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting of the study: key.subkey=value. Repeatable."),
]
DTypeOf = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Of the model's weights: auto, float32, bfloat16, float16, nf4 or int8.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Branch, tag or commit of the model on the hub."),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="Folder or hub id, or name=folder. Repeatable."),
]


def known_dtype(dtype: str | None) -> str:
    """--dtype of a command without settings of the model; "auto" where it is left out.

    Raises:
        InputError: there is no such type.
    """
    from lorascope.config import DType

    known = get_args(DType)
    if dtype is not None and dtype not in known:
        hint = did_you_mean(dtype, known)
        raise InputError(f"--dtype {dtype}: unknown.{hint} There are: {', '.join(known)}")
    return dtype or "auto"


def known_tracker(track: str | None) -> str:
    """--track as a reporter takes it; empty where it is left out.

    Raises:
        InputError: there is no such tracker, or its library is not installed.
    """
    if track is None:
        return ""
    if track not in _TRACKERS:
        hint = did_you_mean(track, _TRACKERS)
        raise InputError(f"--track {track}: unknown.{hint} There are: {', '.join(_TRACKERS)}")
    if find_spec(track) is None:
        raise InputError(
            f"--track {track}: {track} is not installed: pip install 'lorascope[trackers]'"
        )
    return track


def of_base(changes: Sequence[str] | None, dtype: str | None, revision: str | None) -> list[str]:
    """The options --dtype and --revision as changes of settings, before those of --set."""
    given = {"dtype": dtype, "revision": revision}
    # Quoted, so that a commit of digits alone stays text.
    found = [f"{key}='{value}'" for key, value in given.items() if value is not None]
    return [*found, *(changes or [])]


def read_settings(study: Path | None, wanted: WorkflowName) -> dict[str, Any]:
    """The settings in a study file, which options are then laid over; none without a file.

    Raises:
        InputError: it is of another workflow, or not readable.
    """
    from lorascope.config import read_yaml

    require_workflow(study, wanted)
    return read_yaml(study) if study is not None else {}


def in_section(data: dict[str, Any], section: str, **given: Any) -> None:
    """Lay what options say over a section of settings; the rest of it stays."""
    before = data.get(section)
    data[section] = {**(before if isinstance(before, dict) else {}), **given}


def require_options(
    study: Path | None, data: Mapping[str, Any], required: Mapping[str, str]
) -> None:
    """Refuse settings without a study file that lack what a study must have.

    Args:
        required: {option: the setting it stands for}.
    """
    missing = [option for option, key in required.items() if key not in data]
    if study is None and missing:
        raise InputError(f"give a study file, or the options {', '.join(missing)}")


def named_workflow(study: Path | None) -> str:
    """Which workflow a study file is of; an audit does not say what it is.

    Raises:
        InputError: it names a workflow that there is not.
    """
    from lorascope.config import read_yaml

    if study is None or study.is_dir():
        return "audit"
    known, found = get_args(WorkflowName), str(read_yaml(study).get("workflow", "audit"))
    if found not in known:
        hint = did_you_mean(found, known)
        raise InputError(f'{study}: no workflow "{found}".{hint} There are: {", ".join(known)}')
    return found


def require_workflow(study: Path | None, wanted: WorkflowName) -> None:
    """Refuse a study file of another workflow.

    Raises:
        InputError: says which it is of, and the command for it.
    """
    if study is not None and (found := named_workflow(study)) != wanted:
        raise InputError(f"{study}: holds a study of {found}; run lorascope {found} {study}")


def pairs(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    """{name: path} of a repeated name=path option."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise InputError(f"{option} {text}: expected name=path, as in {option} {example}")
        if name in found:
            raise InputError(f"{option} {text}: the name {name} is given twice")
        found[name] = path
    return found


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers between commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: expected whole numbers, as in {option} 4,8") from None
