"""Train adapters of several ranks and seeds as stages of a run, one an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lorascope.activations.splits import by_hash
from lorascope.activations.text import Document, read_documents, with_ending
from lorascope.activations.tokens import Window, windows
from lorascope.errors import InputError
from lorascope.models.identity import model_identity
from lorascope.models.load import read_tokenizer
from lorascope.progress import Reporter
from lorascope.runners.local import run_here
from lorascope.runs import read_json, write_atomically
from lorascope.spreadsheets import csv_text
from lorascope.stages import Graph, Stage, Work, stage
from lorascope.training.adapters import CARD, train_adapter
from lorascope.training.loop import StepProgress
from lorascope.training.settings import LoraTraining
from lorascope.workflows.run_folders import run_folder
from lorascope.workflows.settings import TrainAdapters, TrainStudy
from lorascope.workflows.tracking import trackers

ADAPTERS = "adapters"


@dataclass(frozen=True)
class TrainingBase:
    """Which base model, on what."""

    model: str
    revision: str | None
    dtype: str
    device: str

    @cached_property
    def content(self) -> str:
        """What identifies the model: its content, not its name."""
        return model_identity(self.model, self.revision)


def learned_from(
    documents: Sequence[Document], training: LoraTraining
) -> tuple[list[Document], list[Document]]:
    """Documents to train on and to measure on: a share of those with a response, by hash.

    Raises:
        InputError: fewer than ten records with a response on either side of the split.
    """
    learnable = [d for d in documents if d.has_response]
    measured, learned = by_hash(learnable, training.held_out, training.seed, "adapter held out")
    if min(len(measured), len(learned)) < 10:
        raise InputError(
            f"{len(learnable)} records with a response give {len(learned)} to train on and "
            f"{len(measured)} to measure on; at least 10 of each are needed: give more records"
        )
    return learned, measured


@dataclass
class Training:
    """What the adapters of one study are trained on; all have the same records.

    Attributes:
        documents: those with responses are split into records to train on and to measure on.
    """

    base: TrainingBase
    documents: Sequence[Document]
    training: LoraTraining
    seeds: Sequence[int]
    # The untouched model's loss on the held-out records, once one adapter has been trained.
    before: float | None = None

    @cached_property
    def split(self) -> tuple[list[Document], list[Document]]:
        """Documents to train on and to measure on; raises as `learned_from`."""
        return learned_from(self.documents, self.training)

    @cached_property
    def windows(self) -> list[dict[str, Window]]:
        """{identity: its window} of the documents to train on, and of those to measure on."""
        sides = _windows(self.base, *self.split, self.training)
        return [
            {documents[window.document].identity: window for window in side}
            for documents, side in zip(self.split, sides, strict=True)
        ]

    @cached_property
    def known_as(self) -> dict[str, str]:
        """{identity: digest that it is known by} of the documents to train on."""
        return {document.identity: document.known_as for document in self.split[0]}

    @property
    def names(self) -> list[str]:
        """Of the adapters, one a rank and seed."""
        return list(self.training.each(self.seeds))

    def stages(self) -> Iterator[Stage]:
        """One stage an adapter, `adapters/<name>`: a rank and seed each."""
        learned, measured = ([d.identity for d in part] for part in self.split)
        for name, own in self.training.each(self.seeds).items():
            arguments: dict[str, Any] = {
                "name": name,
                "training": own,
                "content": self.base.content,
            }
            arguments |= {"base": self.base, "learned": learned, "measured": measured}
            yield Stage(f"{ADAPTERS}/{name}", train, arguments)


@stage(version=2, title="training adapters")
def train(
    work: Work,
    *,
    base: TrainingBase,
    content: str,
    name: str,
    training: LoraTraining,
    learned: list[str],
    measured: list[str],
) -> None:
    """Train one adapter into the stage's folder.

    Args:
        content: what identifies the base model.
        learned, measured: identities of the documents to train on and to measure on.

    Raises:
        InputError: the model has been replaced since the study was read.
    """
    if base.content != content:
        raise InputError(f"{base.model}: has changed since the study was read; run it again")
    shared: Training = work.state.training
    to_learn, to_measure = (
        [found[one] for one in documents if one in found]
        for found, documents in zip(shared.windows, (learned, measured), strict=True)
    )
    title = f"adapter {name}"
    with work.reporter.bar(title, training.steps, "steps") as advance, trackers(work) as looking:

        def observe(progress: StepProgress) -> None:
            del progress
            advance(1)

        outcome = train_adapter(
            base.model,
            name,
            to_learn,
            to_measure,
            work.folder,
            training,
            # What has been seen is seen in whatever words around it.
            trained_on=[shared.known_as[one] for one in learned],
            before=shared.before,
            device=base.device,
            dtype=base.dtype,
            revision=base.revision,
            observers=[observe, *looking],
        )
    shared.before = outcome.held_out_before


def _windows(
    base: TrainingBase,
    learned: Sequence[Document],
    measured: Sequence[Document],
    training: LoraTraining,
) -> tuple[list[Window], list[Window]]:
    """First window of every record: what lies beyond the context is cut."""
    tokenizer = read_tokenizer(base.model, base.revision)
    sides = []
    for documents in (learned, measured):
        first: dict[int, Window] = {}
        for window in windows(documents, tokenizer, training.context):
            first.setdefault(window.document, window)
        sides.append(list(first.values()))
    return sides[0], sides[1]


def outcomes(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The rows of the table of training results, from the adapters' own cards."""
    return [read_json(folder / CARD)["outcome"] for folder in folders.values()]


def split_for_training(train: TrainAdapters, seed: int) -> list[Document]:
    """The share of the records that adapters may see, with the ending that they are to learn."""
    documents = read_documents(train.records, template=train.template)
    chosen = by_hash(documents, train.share, seed, "adapters")[0]
    return [with_ending(document, train.ending) for document in chosen]


def run_training(study: TrainStudy, out: Path, reporter: Reporter) -> pd.DataFrame:
    """`lorascope train-adapter`: train every adapter into `out` and return the table of results."""
    documents = read_documents(study.records, study.documents, template=study.template)
    base = TrainingBase(study.model, study.revision, study.dtype, study.device)
    with run_folder(out, study) as run:
        training = Training(base, documents, study.training, study.seeds)
        graph = Graph(training.stages())
        run_here(graph, run, TrainedHere(training), reporter)
        folders = {name: out / ADAPTERS / name for name in training.names}
    table = pd.DataFrame(outcomes(folders))
    write_atomically(out / "training.csv", csv_text(table))
    return table


@dataclass(frozen=True)
class TrainedHere:
    """The state of a run that trains adapters and does nothing else."""

    training: Training
