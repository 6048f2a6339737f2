"""Train adapters of several ranks and seeds as stages of a run, one an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lorascope.activations.splits import by_hash
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, windows
from lorascope.errors import InputError
from lorascope.models.identity import model_identity
from lorascope.models.load import read_tokenizer
from lorascope.runs import Run, read_json, write_atomically
from lorascope.training.adapters import CARD, train_adapter
from lorascope.training.loop import Progress
from lorascope.training.settings import LoraTraining
from lorascope.workflows.progress import Reporter
from lorascope.workflows.refusals import run_folder
from lorascope.workflows.settings import TrainStudy as TrainStudy
from lorascope.workflows.study import TrainAdapters


@dataclass(frozen=True)
class Base:
    """Which base model, on what."""

    model: str
    revision: str | None
    dtype: str
    device: str


def train_adapters(
    run: Run,
    base: Base,
    documents: Sequence[Document],
    training: LoraTraining,
    seeds: Sequence[int],
    reporter: Reporter,
) -> dict[str, Path]:
    """Train one adapter a rank and seed on the documents with responses: {name: folder}.

    A share of the documents, by hash, is held out to measure on, the same for all.

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
    digests = [d.digest for d in learned]
    folders: dict[str, Path] = {}
    cut: tuple[list[Window], list[Window]] | None = None
    before: float | None = None
    for name, own in training.each(seeds).items():
        content = model_identity(base.model, base.revision)
        depends_on = [base.__dict__, content, own.plain(), digests, [d.digest for d in measured]]

        def make(folder: Path, name: str = name, own: LoraTraining = own) -> None:
            nonlocal cut, before
            cut = cut or _windows(base, learned, measured, training)
            with reporter.bar(f"training adapter {name}", own.steps, "steps") as advance:

                def observe(progress: Progress) -> None:
                    del progress
                    advance(1)

                outcome = train_adapter(
                    base.model,
                    name,
                    *cut,
                    folder,
                    own,
                    trained_on=digests,
                    before=before,
                    device=base.device,
                    dtype=base.dtype,
                    revision=base.revision,
                    observers=[observe],
                )
                before = outcome.held_out_before

        folders[name] = run.stage(f"adapters/{name}", depends_on, make)
    return folders


def _windows(
    base: Base, learned: Sequence[Document], measured: Sequence[Document], training: LoraTraining
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
    """The share of the records that adapters may see."""
    documents = read_documents(train.records)
    return by_hash(documents, train.share, seed, "adapters")[0]


def run_training(study: TrainStudy, out: Path, reporter: Reporter) -> pd.DataFrame:
    """`lorascope train-adapter`: train every adapter into `out` and return the table of results."""
    documents = read_documents(study.records, study.documents)
    base = Base(study.model, study.revision, study.dtype, study.device)
    with run_folder(out, study) as run:
        folders = train_adapters(run, base, documents, study.training, study.seeds, reporter)
    table = pd.DataFrame(outcomes(folders))
    write_atomically(out / "training.csv", table.to_csv(index=False))
    return table
