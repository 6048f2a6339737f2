"""Finished evaluations, recognised and told apart before any large library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.config import read_yaml
from lorascope.errors import InputError
from lorascope.runs import read_json
from lorascope.studies.compare.study import addressed, one_named


@dataclass(frozen=True)
class Side:
    """One subject of a finished evaluation.

    Attributes:
        folder: of the run.
        subject: its name there.
        facts: what the run's results say beside the numbers.
    """

    folder: Path
    subject: str
    facts: Mapping[str, Any]


def is_evaluation(address: str, beside: str = "") -> bool:
    """Whether RUN, RUN:SUBJECT, or :SUBJECT of the run `beside`, names a finished evaluation."""
    try:
        folder, _ = addressed(address, addressed(beside)[0] if beside else None)
    except InputError:
        return False
    study = folder / "study.yaml"
    return study.is_file() and read_yaml(study).get("workflow") == "evaluate"


def in_evaluations(first: str, second: str) -> list[tuple[Side, Side]]:
    """The pairs of subjects that two addresses name: those named, else all of one name.

    Raises:
        InputError: a run is not finished or holds no such subject, or it is not clear which are
            meant.
    """
    folder, name = addressed(first)
    other, other_name = addressed(second, folder)
    facts = [_facts(each) for each in (folder, other)]
    known, theirs = (list(one["subjects"]) for one in facts)
    if not name and not other_name and folder.resolve() != other.resolve():
        names = [one for one in known if one in theirs]
        if names and (len(known) > 1 or len(theirs) > 1):
            return [(Side(folder, n, facts[0]), Side(other, n, facts[1])) for n in names]
    pair = (
        Side(folder, one_named(folder, known, name, "subject"), facts[0]),
        Side(other, one_named(other, theirs, other_name, "subject"), facts[1]),
    )
    if folder.resolve() == other.resolve() and pair[0].subject == pair[1].subject:
        raise InputError(
            f"{first} and {second} are one subject of one run; give another run, or :SUBJECT"
        )
    return [pair]


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / "results" / "facts.json"
    if not file.is_file():
        raise InputError(
            f"{folder}: the evaluation is not finished; run lorascope evaluate again with the "
            "same --out"
        )
    found: dict[str, Any] = read_json(file)
    return found
