"""Folders for the Hugging Face hub: a model card that has the chance levels, and the upload.

`OnHub` gives dictionaries and spliced models the idiom of the field: `from_pretrained`,
`save_pretrained`, `push_to_hub`. With `dry_run` nothing leaves the machine: the folder that would
be uploaded is written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from lorascope.errors import InputError
from lorascope.foreign import first_line, local_path
from lorascope.results.estimate import Estimate
from lorascope.results.key import KEY_FIELDS, Key
from lorascope.runs import write_atomically

README: Final = "README.md"
# Stands in usage snippets until the repository is known.
UNNAMED: Final = "OWNER/NAME"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
RepoType = Literal["model", "space"]


@dataclass(frozen=True)
class Described:
    """What a model card is made from.

    Attributes:
        title: heading.
        library: the library that opens the files.
        paragraphs: what it is, in plain sentences (Markdown).
        usage: Python that opens it; `OWNER/NAME` stands for the repository.
        model: the base model's id; a folder's path or "embedded" is not told to the hub.
        relation: to the base model, as the hub knows it; empty for none.
        tags: further words to find it by.
        texts: sources it was made from; ids of the hub are listed as datasets.
        numbers: what was measured of it.
        license: its licence's id on the hub; empty where none is given.
    """

    title: str
    library: str
    paragraphs: Sequence[str]
    usage: str
    model: str = ""
    relation: str = ""
    tags: Sequence[str] = ()
    texts: Sequence[str] = ()
    numbers: Sequence[Estimate] = ()
    license: str = ""


class Published:
    """What can be uploaded as a model repository."""

    @abstractmethod
    def save_whole(self, folder: Path) -> None:
        """Write what is uploaded: everything it needs, with the model card."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dry_run: str | os.PathLike[str] | None = None,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload the files and the model card as a model repository; returns where they are.

        Args:
            repo_id: `owner/name`; made if missing.
            dry_run: write the folder that would be uploaded here instead.
            token: by default the one that `hf auth login` stored.
            revision: branch to upload to.

        Raises:
            InputError: `repo_id` is none, the folder is taken, or the hub refuses the upload.
        """
        return publish(
            self.save_whole,
            repo_id,
            dry_run=None if dry_run is None else local_path(os.fspath(dry_run)),
            private=private,
            token=token,
            revision=revision,
        )


class OnHub(Published):
    """What writes itself into a folder and says what it is can be saved and published."""

    @abstractmethod
    def write_to(self, folder: Path) -> None:
        """Write the files without the model card."""

    @abstractmethod
    def described(self) -> Described:
        """What the model card says."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the files and a model card, `README.md`."""
        place = local_path(os.fspath(folder))
        place.mkdir(parents=True, exist_ok=True)
        self.write_to(place)
        write_atomically(place / README, model_card(self.described()))

    def save_whole(self, folder: Path) -> None:
        """As `save_pretrained`."""
        self.save_pretrained(folder)


def publish(
    write: Callable[[Path], None],
    repo_id: str,
    *,
    dry_run: Path | None = None,
    repo_type: RepoType = "model",
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Write a folder aside and upload it, or leave it where a dry run wants it; says where.

    Raises:
        InputError: as `require_repo_id`, `moved` and `upload`.
    """
    require_repo_id(repo_id)
    with tempfile.TemporaryDirectory() as made:
        whole = Path(made) / "upload"
        whole.mkdir()
        write(whole)
        name_repository(whole, repo_id)
        if dry_run is not None:
            return str(moved(whole, dry_run))
        options: dict[str, Any] = {"private": private, "token": token, "revision": revision}
        return upload(whole, repo_id, repo_type=repo_type, **options)


def model_card(facts: Described) -> str:
    """`README.md`: metadata that the hub reads, then what it is, numbers, usage.

    Each number is in the metadata twice: measured, and at its chance level.
    """
    results = [result for estimate in facts.numbers for result in _results(estimate, facts)]
    data = ModelCardData(
        library_name=facts.library,
        license=facts.license or None,
        base_model=facts.model if is_hub_id(facts.model) else None,
        base_model_relation=facts.relation or None if is_hub_id(facts.model) else None,
        datasets=[dataset_of(text) for text in facts.texts if is_hub_id(text)] or None,
        tags=["lorascope", *facts.tags],
        model_name=facts.title if results else None,
        eval_results=results or None,
    )
    parts = [f"---\n{data.to_yaml()}\n---\n", f"# {facts.title}", *facts.paragraphs]
    parts += ["## Use", f"```python\n{facts.usage.strip()}\n```"]
    if facts.numbers:
        parts += ["## Numbers", *_table(facts.numbers)]
    return "\n\n".join(parts) + "\n"


def _results(estimate: Estimate, facts: Described) -> list[EvalResult]:
    """The number, and its chance level under a name of its own."""
    if not _finite(estimate.value):
        return []
    of = _belongs_to(estimate.key)
    texts = ", ".join(map(public, facts.texts)) or "texts of its study"
    fixed: dict[str, Any] = {
        "task_type": "feature-extraction",
        "task_name": "Reconstruction of the residual stream",
        "dataset_type": next((dataset_of(t) for t in facts.texts if is_hub_id(t)), "other"),
        "dataset_name": f"{texts}, held-out documents",
        # The hub's reader puts results together by the dataset's configuration and by no name.
        "dataset_config": of or facts.title,
        "metric_type": estimate.measure,
    }
    name = f"{estimate.measure} ({estimate.unit})"
    found = [EvalResult(**fixed, metric_value=_rounded(estimate.value), metric_name=name)]
    if _finite(estimate.chance) and estimate.headline is not None:
        chance = f"{name}, chance level: {estimate.headline.name}"
        level = _rounded(estimate.chance)
        found.append(EvalResult(**fixed, metric_value=level, metric_name=chance))
    return found


def _table(numbers: Iterable[Estimate]) -> list[str]:
    rows = [
        "| number | of | value | 95 % interval | chance level | verdict | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in numbers:
        null = one.headline
        chance = "–" if null is None else f"{_printed(null.level)} ({null.name})"
        cells = (
            f"`{one.measure}` ({one.unit})",
            _belongs_to(one.key),
            _printed(one.value),
            f"[{', '.join(map(_printed, one.interval))}]",
            chance,
            one.verdict,
            f"{one.n:,}",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    reading = (
        "A chance level is the same number where there is nothing to find. The verdict comes from "
        "the interval of the difference to every rival; *not settled* is not *no*. Definitions are "
        "in lorascope's documentation, under Measures."
    )
    return ["\n".join(rows), reading]


def _belongs_to(key: Key) -> str:
    """What a number is of: every field of its key that says something."""
    plain = {"dictionary", "adapter", "site", "setting"}
    said = ((name, getattr(key, name)) for name in (*sorted(plain), *KEY_FIELDS))
    found = {name: value for name, value in said if value not in (None, "")}
    return ", ".join(
        str(value) if name in plain else f"{name} {value}" for name, value in found.items()
    )


def name_repository(folder: Path, repo_id: str) -> None:
    """Put the repository's id into the usage snippets of a folder."""
    path = folder / README
    if path.is_file():
        write_atomically(path, path.read_text(encoding="utf-8").replace(UNNAMED, repo_id))


def moved(whole: Path, folder: Path) -> Path:
    """Put a finished folder where a dry run was asked to leave it.

    Raises:
        InputError: something is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds something already; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    return folder


def upload(
    folder: Path,
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Create a repository where it is missing and upload a folder; returns its address.

    Raises:
        InputError: the hub cannot be reached or refuses; says why in one line.
    """
    api = HfApi(token=token, library_name="lorascope")
    options: dict[str, Any] = {} if repo_type == "model" else {"space_sdk": "static"}
    try:
        made = api.create_repo(
            repo_id, repo_type=repo_type, private=private, exist_ok=True, **options
        )
        api.upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder,
            revision=revision,
            commit_message="Upload with lorascope",
        )
    except Exception as error:
        raise InputError(
            f"{repo_id}: the hub did not take it ({first_line(error)}); check the name, the "
            "network and `hf auth whoami`, or give --dry-run"
        ) from None
    return str(made)


def require_repo_id(repo_id: str) -> None:
    """Refuse what names no repository.

    Raises:
        InputError: says what one looks like.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id}: no repository's id ({first_line(error)})") from None
    if "/" not in repo_id:
        raise InputError(f"{repo_id}: give the owner too, as in me/{repo_id}")


def is_hub_id(text: str) -> bool:
    """Whether a name can be an id of the hub, and is no path of this machine."""
    return bool(_HUB_ID.fullmatch(dataset_of(text))) and not Path(text).exists()


def public(name: str) -> str:
    """What a path or id is called where others read it: paths of this machine by their end."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name


def dataset_of(text: str) -> str:
    """The id in `org/name:train[5000:7000]`."""
    return text.partition(":")[0]


def as_json(data: object) -> str:
    """A literal for a usage snippet."""
    return json.dumps(data, ensure_ascii=False)


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _printed(value: float) -> str:
    return f"{value:.3g}" if _finite(value) else "–"
