"""Copies of a dictionary saved during its training, with the time and tokens of each.

    folder/000120/        a dictionary as it is saved anywhere, after 120 steps
    folder/000120.json    its step, tokens and seconds

What is saved is what there would be if training ended there, but for the rate's fall at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lorascope.config import Settings
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import save
from lorascope.runs import read_json, write_atomically
from lorascope.training.loop import History, StepProgress

SECONDS = "seconds"
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


@dataclass(frozen=True)
class Saving:
    """Where and when snapshots are saved.

    Attributes:
        folder: created where it is missing.
        shares: of the run's steps, above 0 up to 1.
        before: seconds spent before the first step, on a sample of the data for instance.
    """

    folder: Path
    shares: Sequence[float] = TENTHS
    before: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """A dictionary saved during its training.

    Attributes:
        step: optimiser steps done.
        tokens: rows, or tokens whose prediction was compared, in these steps.
        seconds: wall clock up to there, looks and saving left out.
        folder: of the dictionary.
    """

    step: int
    tokens: int
    seconds: float
    folder: Path


class _Noted(Settings):
    step: int
    tokens: int
    seconds: float


class Stopwatch:
    """An observer that notes the seconds so far with every step of a run.

    A run that goes on after a stop goes on from the seconds noted last.

    Args:
        history: of the run.
        before: seconds spent before the first step.
    """

    def __init__(self, history: History, before: float = 0.0) -> None:
        self._history, self._before = history, before
        self._earlier: float | None = None

    def __call__(self, progress: StepProgress) -> None:
        records = self._history.records
        if self._earlier is None:
            self._earlier = float(records[-2][SECONDS]) if len(records) > 1 else self._before
        seconds = torch.tensor(self._earlier + progress.seconds, dtype=torch.float64)
        records[-1] = {**records[-1], SECONDS: seconds}

    @property
    def seconds(self) -> float:
        """Those of all steps done; 0 before the first."""
        records = self._history.records
        return float(records[-1][SECONDS]) if records else 0.0


class SnapshotKeeper:
    """An observer that saves snapshots, and notes the seconds so far with every step.

    Args:
        saving: where and when.
        steps: of the whole run.
        history: of the run.
        make: the dictionary as it is now.
        tokens: how many so many steps have taken.
    """

    def __init__(
        self,
        saving: Saving,
        steps: int,
        history: History,
        make: Callable[[], Dictionary],
        tokens: Callable[[int], int],
    ) -> None:
        self._folder = saving.folder
        self._watch = Stopwatch(history, saving.before)
        self._make, self._tokens = make, tokens
        self._due = {max(1, round(share * steps)) for share in saving.shares}

    def __call__(self, progress: StepProgress) -> None:
        self._watch(progress)
        step = progress.step + 1
        if step in self._due:
            folder = self._folder / f"{step:06d}"
            save(self._make(), folder)
            facts = _Noted(step=step, tokens=self._tokens(step), seconds=self._watch.seconds)
            write_atomically(folder.with_suffix(".json"), json.dumps(facts.plain()) + "\n")


def read_snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots in a folder, by step; none where it is missing."""
    found = []
    for file in sorted(folder.glob("*.json")):
        noted = _Noted.parse(read_json(file), str(file))
        found.append(Snapshot(noted.step, noted.tokens, noted.seconds, file.with_suffix("")))
    return sorted(found, key=lambda one: one.step)
