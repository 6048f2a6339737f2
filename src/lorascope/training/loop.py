"""The one training loop: dictionaries, adapters and models are all fitted here.

What differs between them is the step function and the parameters:

1. the schedule sets the learning rate,
2. `step(batch)` leaves gradients on the parameters and returns named scalars,
3. gradients are clipped and the optimiser moves the parameters,
4. `after(i)` may act on the parameters (resampling dead latents, say),
5. observers look; they cannot change the run (`observing` restores mode and random state).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lorascope.training.schedules import Schedule, constant

Batch = TypeVar("Batch")
Scalars = Mapping[str, Tensor]


@dataclass(frozen=True)
class StepProgress:
    """What an observer sees after a step. `scalars` stay on the device until someone reads them.

    Attributes:
        seconds: wall clock of the run's steps and of waiting for their data, observers left out;
            counted from where this process began or went on.
    """

    step: int
    total: int
    scalars: Scalars
    seconds: float = 0.0

    @property
    def last(self) -> bool:
        """Whether this was the run's final step."""
        return self.step + 1 == self.total


Observer = Callable[[StepProgress], None]


@dataclass
class History:
    """Every scalar of every step, kept on the device during the run."""

    records: list[Scalars] = field(default_factory=list)

    def __repr__(self) -> str:
        names = dict.fromkeys(name for record in self.records for name in record)
        return f"History({len(self.records)} steps: {', '.join(names)})"

    def series(self, name: str) -> list[float]:
        """The values of one scalar over the run."""
        # One copy for all steps; a run that went on from a file may have them on two devices.
        place = self.records[-1][name].device
        return torch.stack([r[name].detach().float().to(place) for r in self.records]).tolist()

    def points(self, name: str) -> list[tuple[int, float]]:
        """(steps done, value) wherever a scalar was noted."""
        return [(i, float(r[name])) for i, r in enumerate(self.records, 1) if name in r]

    def tail_mean(self, name: str, share: float = 0.1) -> float:
        """Mean of one scalar over the last `share` of the steps (at least one)."""
        values = self.series(name)
        kept = values[-max(1, round(share * len(values))) :]
        return sum(kept) / len(kept)


@contextmanager
def observing(module: nn.Module | None) -> Iterator[None]:
    """Let something look at a run in progress and put back everything it may have touched.

    Every submodule's training mode and the global random states (CPU, current GPU) are restored.
    """
    modes = [(m, m.training) for m in module.modules()] if module is not None else []
    cpu_state = torch.get_rng_state()
    gpu_state = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu_state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state)
        for submodule, mode in modes:
            submodule.training = mode


def train(
    step: Callable[[Batch], Scalars],
    batches: Iterable[Batch],
    optimizer: Optimizer,
    *,
    steps: int,
    schedule: Schedule = constant,
    clip_norm: float | None = None,
    after: Callable[[int], None] | None = None,
    observers: Sequence[Observer] = (),
    module: nn.Module | None = None,
) -> History:
    """Run `steps` optimiser steps over `batches` and return the history of scalars.

    Args:
        step: takes a batch, leaves `.grad` on the parameters, returns scalar tensors.
        batches: yields at least `steps` batches.
        optimizer: its current learning rates are the peak rates the schedule multiplies.
        clip_norm: global gradient norm limit; None leaves gradients alone.
        after: called with the step index once the parameters have moved; part of the run.
        observers: called last with a `StepProgress`; what they do to mode or randomness is undone.
        module: the module whose train/eval mode observers must not disturb.

    Raises:
        ValueError: `batches` ran out before `steps` steps.
    """
    history = History()
    running = stepwise(
        step,
        batches,
        optimizer,
        history,
        steps=steps,
        schedule=schedule,
        clip_norm=clip_norm,
        after=after,
        observers=observers,
        module=module,
    )
    for _ in running:
        pass
    return history


def stepwise(
    step: Callable[[Batch], Scalars],
    batches: Iterable[Batch],
    optimizer: Optimizer,
    history: History,
    *,
    steps: int,
    schedule: Schedule = constant,
    clip_norm: float | None = None,
    after: Callable[[int], None] | None = None,
    observers: Sequence[Observer] = (),
    module: nn.Module | None = None,
) -> Iterator[int]:
    """`train` one step at a time, so that several runs can take turns; yields the step's index.

    Arguments as for `train`. The run goes on from where `history` ends, and `batches` begin there.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    stream = iter(batches)
    seconds = 0.0
    for index in range(len(history.records), steps):
        started = perf_counter()
        try:
            batch = next(stream)
        except StopIteration:
            raise ValueError(f"data ran out after {index} of {steps} steps") from None
        multiplier = schedule(index, steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * multiplier
        optimizer.zero_grad(set_to_none=True)
        scalars = {name: value.detach() for name, value in step(batch).items()}
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        if after is not None:
            after(index)
        history.records.append(scalars)
        seconds += perf_counter() - started
        if observers:
            with observing(module):
                for observe in observers:
                    observe(StepProgress(index, steps, scalars, seconds))
        yield index
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak
