"""Fit dictionaries to rows of activations, one or several at once.

1. Take massive coordinates of the stream down to the others' size, where there are some; scale the
   rows to mean norm 1; draw first directions and the decoder bias from a sample.
2. Run the training loop over mixed batches, epoch after epoch; several dictionaries take turns on
   the same rows in memory, each in an order of its own.
3. With an L1 or L0 penalty, silent latents start anew at a quarter, a half and seven tenths.
4. Fold the scale back in, and undo what was done to massive coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.massive import Levelling, Massive, find_massive, levelling
from lorascope.activations.mixing import WINDOW, Feed, Levelled, Rows, as_rows
from lorascope.activations.scaling import mean_norm
from lorascope.activations.settings import Treatment
from lorascope.config import digest
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError, kind_of, require_kind
from lorascope.randomness import generator
from lorascope.training.architectures import Architecture
from lorascope.training.architectures.penalty import PenalisedObjective
from lorascope.training.architectures.settings import ArchitectureSettings, PenalisedSettings
from lorascope.training.checkpoints import Checkpoint
from lorascope.training.loop import History, Observer, StepProgress, stepwise
from lorascope.training.resampling import resample
from lorascope.training.schedules import warmup_hold_decay
from lorascope.training.settings import Fitting
from lorascope.training.snapshots import Saving, SnapshotKeeper
from lorascope.training.starts import SAMPLE, sampled, start

# What the history calls the relative error on held-out rows, noted at the end of every epoch.
HELD_OUT_ERROR = "held_out_error"
RESAMPLE_AT = (0.25, 0.5, 0.7)
# Rows the last look at the data takes, to set what no gradient trains.
_FINISH_ROWS = 8192
_CALIBRATE_ROWS = 1024


@dataclass(frozen=True)
class Job:
    """One dictionary to fit.

    Attributes:
        architecture: its settings.
        seed: decides the starting directions, the order of rows and the resampling.
        card: provenance to save with it; scale, settings and token count are filled in.
        checkpoint: file to keep the run's state in; the run goes on from there if it exists.
        observers: look at this dictionary's steps.
        saving: where and when to save it during training, with the time it took.

    Examples:
        >>> [ls.Job(ls.ReLU(n_latents=64), seed=seed).seed for seed in (0, 1)]
        [0, 1]
    """

    architecture: Architecture
    seed: int = 0
    card: Card | None = None
    checkpoint: Path | None = None
    observers: Sequence[Observer] = ()
    saving: Saving | None = None

    def __post_init__(self) -> None:
        own = "the settings of an architecture, ReLU(n_latents=4096, l1=0.15) for instance"
        require_kind(self.architecture, ArchitectureSettings, "the architecture", own)
        require_kind(self.seed, Integral, "the seed", "a whole number")
        require_kind(self.card, (Card, type(None)), "the card", "a Card, or leave it out")
        if self.checkpoint is not None:
            wanted = "the path of a file, or leave it out"
            require_kind(self.checkpoint, (str, Path), "the checkpoint", wanted)
            object.__setattr__(self, "checkpoint", Path(self.checkpoint))


def product_dtype(choice: str, device: torch.device | str) -> torch.dtype:
    """The type of the large products that `choice` means on `device`."""
    if choice != "auto":
        return torch.bfloat16 if choice == "bfloat16" else torch.float32
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bf16 else torch.float32


def fit(
    architecture: Architecture,
    rows: Rows | Float[Tensor, "rows d"],
    *,
    fitting: Fitting | None = None,
    seed: int = 0,
    card: Card | None = None,
    device: str = "cpu",
    observers: Sequence[Observer] = (),
    checkpoint: Path | None = None,
) -> Dictionary:
    """Train a dictionary on rows and return it ready for raw activations.

    Args:
        architecture: its settings, `ReLU(n_latents=16384, l1=0.15)`.
        rows: activations or deltas in the stream's own units, in memory or on disk.
        seed: decides the starting directions, the order of rows and the resampling.
        card: provenance to save with it; scale, settings and token count are filled in here.
        checkpoint: file to keep the run's state in; a run that was stopped goes on from it.

    Raises:
        InputError: too few rows for one batch, rows that are all zero or not finite, or an argument
            of the wrong kind.

    Examples:
        >>> import torch
        >>> rows = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
        >>> ls.fit(ls.TopK(n_latents=32, k=4), rows, fitting=ls.Fitting(epochs=1, batch=64))
        TopKDictionary(32 latents of 16 dimensions)
    """
    job = Job(architecture, seed, card, checkpoint, observers)
    return fit_many([job], rows, fitting, device=device)[0][0]


def fit_many(
    jobs: Sequence[Job],
    rows: Rows | Float[Tensor, "rows d"],
    fitting: Fitting | None = None,
    *,
    held_out: Float[Tensor, "some d"] | None = None,
    sample: Rows | None = None,
    window: int = WINDOW,
    device: str = "cpu",
) -> list[tuple[Dictionary, History]]:
    """Train several dictionaries on the same rows in one pass; each comes out as it would alone.

    Args:
        sample: rows that scale, start and last look are taken from, where reading all of them
            several times would cost too much.
        window: rows held in memory and mixed with one another.
        held_out: rows to note the relative error on at the end of every epoch; looking at them
            does not change the dictionaries.

    Returns each dictionary with the history of its steps: error (of inputs scaled to mean norm 1,
    massive coordinates taken down), l0, and l1 or dead where the architecture has them.

    Examples:
        >>> import torch
        >>> jobs = [ls.Job(ls.TopK(n_latents=32, k=k)) for k in (2, 4)]
        >>> [d.k for d, _ in ls.fit_many(jobs, torch.randn(400, 16), ls.Fitting(batch=64))]
        [2, 4]
    """
    _require_jobs(jobs)
    source = as_rows(rows)
    wanted = "Fitting(epochs=8, batch=512), or leave it out"
    require_kind(fitting, (Fitting, type(None)), "fitting", wanted)
    require_kind(held_out, (Tensor, type(None)), "held_out", "a tensor [rows, d_model]")
    _require_device(device)
    fitting = fitting or Fitting()
    if len(source) < fitting.batch:
        raise InputError(
            f"{len(source)} rows are too few for a dictionary trained in batches of "
            f"{fitting.batch}; give more text or a smaller batch"
        )
    looked_at = sample or source
    level = _level(jobs, looked_at, fitting.massive)
    if level is not None:
        source, looked_at = Levelled(source, level.map), Levelled(looked_at, level.map)
        held_out = None if held_out is None else level.map.level(held_out)
    try:
        scale = mean_norm(looked_at.chunks())
    except ValueError as error:
        raise InputError(f"{error}: there is nothing to train on") from None
    space = _Space(scale, level)
    feed = Feed(source, fitting.batch, window, device)
    runs = [
        _Run(job, len(source), looked_at, space, fitting, feed, device, held_out) for job in jobs
    ]
    while (done := min(run.done for run in runs)) < fitting.steps(len(source)):
        for run in runs:
            # Runs that were stopped at different steps are first brought level.
            if run.done == done:
                run.advance()
    return [run.finished() for run in runs]


def _require_jobs(jobs: Sequence[Job]) -> None:
    """Refuse what is no list of jobs, with what to write instead."""
    require_kind(jobs, (list, tuple), "jobs", "a list: [Job(ReLU(n_latents=4096))]")
    if not jobs:
        raise InputError("jobs is an empty list: give a Job for each dictionary to train")
    for job in jobs:
        require_kind(job, Job, "one of the jobs", "Job(ReLU(n_latents=4096)) for each dictionary")


def _require_device(device: str) -> None:
    try:
        torch.device(device)
    except (RuntimeError, TypeError):
        said = kind_of(device)
        raise InputError(f"device is {said}: give cpu, cuda or cuda:0") from None


@dataclass(frozen=True)
class _Level:
    """What is massive in the rows, and the map that takes it down."""

    massive: Massive
    map: Levelling


@dataclass(frozen=True)
class _Space:
    """Where a dictionary is trained: rows taken down where some of them are massive, then divided
    by a scale."""

    scale: float
    level: _Level | None

    def outside(self, dictionary: Dictionary) -> Dictionary:
        """A dictionary of the stream itself, from one with the scale folded in."""
        return dictionary if self.level is None else dictionary.undoing(self.level.map)


def _level(jobs: Sequence[Job], rows: Rows, treatment: Treatment) -> _Level | None:
    if treatment == "keep":
        return None
    some = sampled(rows, max(SAMPLE, 4 * rows.d_model))
    of_base = all(job.card is not None and job.card.target == "base" for job in jobs)
    massive = find_massive(some, directions=of_base)
    found = levelling(some, massive, treatment)
    return None if found is None else _Level(massive, found)


class _Run:
    """One dictionary in training."""

    def __init__(
        self,
        job: Job,
        count: int,
        rows: Rows,
        space: _Space,
        fitting: Fitting,
        feed: Feed,
        device: str,
        held_out: Float[Tensor, "some d"] | None,
    ) -> None:
        self._job, self._space, self._fitting = job, space, fitting
        self._scale = scale = space.scale
        self._count, self._rows = count, rows
        self._held_out = None if held_out is None else held_out.to(device) / scale
        self._steps = fitting.steps(count)
        self._resampling = {round(share * self._steps) for share in RESAMPLE_AT}
        first = start(job.architecture, rows, scale, generator(job.seed, "start")).to(device)
        products = product_dtype(fitting.products, device)
        self.objective = job.architecture.objective(first, products)
        self.objective.horizon = self._steps
        self.objective.calibrate(sampled(rows, _CALIBRATE_ROWS).to(device) / scale)
        self.optimizer = torch.optim.Adam(self.objective.parameters(), lr=fitting.rate, fused=True)
        self.history = History()
        self._checkpoint = self._restored(products)
        self._advancing = stepwise(
            self._step,
            feed.batches(job.seed, self.done),
            self.optimizer,
            self.history,
            steps=self._steps,
            schedule=warmup_hold_decay(),
            clip_norm=self._fitting.clip,
            after=self._after,
            observers=self._observers(),
            module=self.objective,
        )

    @property
    def done(self) -> int:
        """Steps that are done."""
        return len(self.history.records)

    def advance(self) -> None:
        """Take one more step."""
        next(self._advancing)

    def finished(self) -> tuple[Dictionary, History]:
        """The dictionary, once every step is done."""
        rows = self._rows
        device = self.objective.decoder.device
        self.objective.finish(sampled(rows, _FINISH_ROWS).to(device) / self._scale)
        if self._checkpoint is not None:
            self._checkpoint.remove()
        found = self.objective.dictionary(self._scale, self._card(self._steps))
        return self._space.outside(found), self.history

    def _card(self, steps: int) -> Card:
        level = self._space.level
        return (self._job.card or Card()).model_copy(
            update={
                "massive": [] if level is None else list(level.massive.coordinates),
                "massive_directions": 0 if level is None else len(level.massive.directions),
                "scale": self._scale,
                "seed": self._job.seed,
                "tokens": steps * self._fitting.batch,
                "settings": {**self._job.architecture.plain(), **self._fitting.plain()},
            }
        )

    def _now(self) -> Dictionary:
        """The dictionary there would be if training ended with the latest rows."""
        found = self.objective.ended(self._latest, self._scale, self._card(self.done))
        return self._space.outside(found)

    def _observers(self) -> list[Observer]:
        found = list(self._job.observers)
        if self._held_out is not None:
            found.append(self._follow)
        if self._job.saving is not None:
            batch = self._fitting.batch
            keeper = SnapshotKeeper(
                self._job.saving, self._steps, self.history, self._now, lambda steps: steps * batch
            )
            found.append(keeper)
        # Last: what was noted of a step is saved with it.
        return [*found, self._checkpoint] if self._checkpoint else found

    def _follow(self, progress: StepProgress) -> None:
        """At the end of an epoch, note the relative error on held-out rows."""
        assert self._held_out is not None
        done, batch, rows = progress.step + 1, self._fitting.batch, self._count
        if done * batch // rows > (done - 1) * batch // rows or progress.last:
            noted = self.history.records[-1]
            error = self.objective.look(self._held_out, self._latest)
            self.history.records[-1] = {**noted, HELD_OUT_ERROR: error}

    def _restored(self, products: torch.dtype) -> Checkpoint | None:
        """The run's checkpoint, what it holds put back."""
        job = self._job
        if job.checkpoint is None:
            return None
        settings = [job.architecture.plain(), self._fitting.plain(), str(products)]
        made_from = job.card.activations if job.card is not None else ""
        identity = digest([settings, job.seed, self._count, self._scale, made_from])
        checkpoint = Checkpoint(job.checkpoint, identity)
        checkpoint.bind(self.objective, self.optimizer, self.history)
        checkpoint.restore()
        for group in self.optimizer.param_groups:
            group["lr"] = self._fitting.rate  # what was saved is the rate of one step
        return checkpoint

    def _step(self, batch: Tensor) -> dict[str, Tensor]:
        self._latest = batch / self._scale
        return self.objective.step(self._latest)

    def _after(self, index: int) -> None:
        objective, architecture = self.objective, self._job.architecture
        if not isinstance(architecture, PenalisedSettings) or not architecture.resample:
            return
        if index in self._resampling and isinstance(objective, PenalisedObjective):
            before = max((i for i in self._resampling if i < index), default=-1)
            resample(
                objective,
                self._latest,
                self.optimizer,
                generator(self._job.seed, "resample", index),
                since=(index - before) * self._fitting.batch,
            )
