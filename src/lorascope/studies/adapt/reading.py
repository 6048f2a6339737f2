"""The texts of an adapt study, as the stage that every other one reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorascope.activations.tokens import count_tokens
from lorascope.errors import InputError
from lorascope.fits.preparing import plan
from lorascope.models.identity import model_identity
from lorascope.runs import read_json, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.adapt.state import TEXTS, Adapted, require_held_out
from lorascope.workflows.left_out import text_counts, text_warnings

_FILE = "texts.json"


@stage(version=1, title="reading texts")
def read(work: Work, *, identity: Mapping[str, Any]) -> None:
    """Count the texts, and refuse those that cannot carry the numbers.

    Args:
        identity: the model and its windows of the texts, on which every number depends.

    Raises:
        InputError: too few documents or tokens to measure on, or the model has been replaced since
            the study was read.
    """
    name, revision, _, content = identity["model"]
    if model_identity(name, revision) != content:
        raise InputError(f"{name}: has changed since the study was read; run it again")
    state: Adapted = work.state
    parts, held_out = state.texts, state.held_out
    tokens = count_tokens(held_out, state.tokenizer)
    documents = len({window.document for window in held_out})
    require_held_out(documents, tokens)
    training = {
        "documents": len(parts.probe),
        "tokens": count_tokens(state.training, state.tokenizer),
    }
    record = {
        "training": training,
        "held_out": {"documents": documents, "tokens": tokens},
        "held_out_documents": len(parts.held_out),
        "left_out": parts.excluded + parts.surplus,
        "records": text_counts(parts),
        "warnings": text_warnings(parts),
    }
    write_json(work.folder / _FILE, record)


def stages(state: Adapted) -> Iterator[Stage]:
    """The stage `texts`."""
    yield Stage(TEXTS, read, {"identity": state.identity()})


def counts(folder: Path) -> dict[str, Any]:
    """What the stage found, of a run folder."""
    return dict(read_json(folder / TEXTS / _FILE))


def require_budgets(state: Adapted) -> None:
    """Refuse budgets smaller than a step before anything is trained; raises as `plan`."""
    for cell in state.asked.fits[:1]:
        plan(state.training, state.tokenizer, cell.settings(state.study))
