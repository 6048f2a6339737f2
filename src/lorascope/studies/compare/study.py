"""The settings of a comparison; nothing here waits for torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field

from lorascope.activations.settings import Capture
from lorascope.config import Settings, read_yaml
from lorascope.errors import InputError, did_you_mean
from lorascope.folder_contents import held
from lorascope.runs import read_json
from lorascope.workflows.settings import Texts, TrainAdapters, numbered


class _OfDictionaries(Settings):
    model_config = ConfigDict(extra="ignore")

    seeds: tuple[int, ...] = Field(min_length=1)


class _OfMeasures(Settings):
    model_config = ConfigDict(extra="ignore")

    angles_k: tuple[int, ...] = ()


class AuditedStudy(Settings):
    """What a comparison reads of an audit's settings, as its run folder has them.

    Attributes:
        adapters, train: one of the two, as the audit had it.
        sites, texts, capture, seed: what was captured, and from which texts.
        dictionaries: the seeds of its dictionaries.
        measures: the dimensions of its principal angles.
    """

    model_config = ConfigDict(extra="ignore")

    model: str
    revision: str | None = None
    adapters: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    train: TrainAdapters | None = None
    sites: tuple[str, ...] = Field(min_length=1)
    texts: Texts
    capture: Capture = Capture()
    dictionaries: _OfDictionaries
    measures: _OfMeasures
    seed: int = 0

    @property
    def given(self) -> dict[str, str]:
        """{name: folder or hub id} of the adapters given; `name-1`, `name-2` … of several seeds."""
        return numbered(self.adapters)


class CompareSettings(Settings):
    """What is compared, and how finely.

    Attributes:
        first, second: RUN, RUN:ADAPTER, or :ADAPTER of the first one's run.
        sites: which of the sites both runs captured; all by default.
        rows: most common tokens to use, shared out among documents.
        false_rate: share of the latents listed as active in one only that may be false.
        repeats: draws of each null of the geometric measures.
        listed: most latents a site and side whose contexts are shown.
        contexts: contexts shown of each.
        texts: documents, and tokens, shown where the deltas differ most.
    """

    first: str
    second: str
    sites: tuple[str, ...] = ()
    rows: int = Field(default=20000, ge=100)
    false_rate: float = Field(default=0.1, gt=0, lt=1)
    repeats: int = Field(default=10, ge=2)
    listed: int = Field(default=24, ge=0)
    contexts: int = Field(default=5, ge=1)
    texts: int = Field(default=20, ge=1)
    seed: int = 0


# What captured activations call the model without an adapter (`activations.shards`).
_BASE = "base"
# Stages that others read of a finished audit.
_STAGES = ("activations/held_out", "results")


def sanity_checks_of(folder: Path) -> str:
    """The stage of an audit's sanity checks; "gates" in runs made before it had that name."""
    return "gates" if (folder / "gates").is_dir() else "sanity_checks"


def in_compared(first: str, second: str) -> None:
    """The run folders of two audits to compare, and the adapters of each."""
    folder, name = addressed(first)
    other, other_name = addressed(second, folder)
    for each in dict.fromkeys((folder, other)):
        in_finished(each)
    # Names are wrong more often than files: those are looked at again when they are opened.
    for each, asked in ((folder, name), (other, other_name)):
        captured = read_json(each / "activations" / "held_out" / "manifest.json")
        others = {_BASE, *captured.get("nulls", ())}
        known = [one for one in captured.get("variants", ()) if one not in others]
        if known:
            one_named(each, known, asked)


def in_finished(folder: Path) -> AuditedStudy:
    """Parts of a finished audit's folder; returns its study."""
    if not (folder / "study.yaml").is_file() or not (folder / "manifest.json").is_file():
        raise InputError(
            f"{folder}: {held(folder)}; give the folder of a finished audit, or FOLDER:ADAPTER"
        )
    try:
        study = AuditedStudy.parse(read_yaml(folder / "study.yaml"), "study.yaml")
    except InputError as error:
        raise InputError(f"{folder}: not an audit of this version ({error})") from None
    stages = read_json(folder / "manifest.json").get("stages", {})
    for stage in (sanity_checks_of(folder), *_STAGES):
        if stage not in stages:
            raise InputError(
                f"{folder}: the audit is not finished ({stage} is missing); run lorascope "
                "audit again with the same --out"
            )
    if not (folder / "activations" / "held_out" / "manifest.json").is_file():
        raise InputError(
            f"{folder}: its held-out activations have been removed; run lorascope audit again "
            "with the same --out to capture them"
        )
    return study


def one_named(folder: Path, known: Sequence[str], name: str, kind: str = "adapter") -> str:
    """The adapter, or other kind, of that name in a run's folder; the only one where none is named.

    Raises:
        InputError: there is none of that name, or none was named and there are several.
    """
    if not name and len(known) == 1:
        return known[0]
    if not name:
        raise InputError(
            f"{folder}: holds the {kind}s {', '.join(known)}; say which, as in {folder}:{known[0]}"
        )
    if name not in known:
        raise InputError(
            f'{folder}: no {kind} named "{name}"; there are {", ".join(known)}.'
            f"{did_you_mean(name, known)}"
        )
    return name


def addressed(address: str, default: Path | None = None) -> tuple[Path, str]:
    """The run folder and the adapter of RUN, RUN:ADAPTER, or :ADAPTER of the default run."""
    if Path(address).is_dir():
        return Path(address), ""
    folder, sign, name = address.rpartition(":")
    if not sign:
        folder, name = address, ""
    if not folder:
        if default is None:
            raise InputError(f"{address}: name the run first, as in runs/mine{address}")
        return default, name
    return Path(folder), name
