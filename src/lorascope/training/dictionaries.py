"""Fit a dictionary to rows of activations.

1. Scale the rows to mean norm 1 and take their mean.
2. Run the training loop over mixed batches, epoch after epoch.
3. Give silent latents a new start at a quarter, a half and seven tenths of the run.
4. Fold the scale back in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lorascope.activations.mixing import Rows, TensorRows, epochs
from lorascope.activations.scaling import mean_and_covariance, mean_norm
from lorascope.config import Settings
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.randomness import generator
from lorascope.training.architectures.relu import ReLU, ReluObjective
from lorascope.training.loop import History, Observer, train
from lorascope.training.schedules import warmup_hold_decay

RESAMPLE_AT = (0.25, 0.5, 0.7)


class Fitting(Settings):
    """How long and how fast a dictionary is trained.

    Attributes:
        epochs: passes over the rows.
        batch: rows a step.
        rate: Adam's peak learning rate.
        products: type of the large matrix products; "auto" takes bfloat16 where the hardware has
            it. Weights and optimiser state are float32 in every case.
    """

    epochs: float = Field(default=8, gt=0)
    batch: int = Field(default=512, gt=0)
    rate: float = Field(default=4e-3, gt=0)
    products: str = Field(default="auto", pattern="^(auto|float32|bfloat16)$")

    def steps(self, rows: int) -> int:
        """Optimiser steps over so many rows."""
        return max(1, math.ceil(self.epochs * rows / self.batch))


def product_dtype(choice: str, device: torch.device | str) -> torch.dtype:
    """The type of the large products that `choice` means on `device`."""
    if choice != "auto":
        return torch.bfloat16 if choice == "bfloat16" else torch.float32
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bf16 else torch.float32


def fit(
    architecture: ReLU,
    rows: Rows | Float[Tensor, "rows d"],
    *,
    fitting: Fitting | None = None,
    seed: int = 0,
    card: Card | None = None,
    device: str = "cpu",
    observers: Sequence[Observer] = (),
) -> Dictionary:
    """Train a dictionary on rows and return it ready for raw activations.

    Args:
        architecture: its settings, `ReLU(n_latents=16384, l1=0.15)`.
        rows: activations or deltas in the stream's own units, in memory or on disk.
        seed: decides the starting directions, the order of rows and the resampling.
        card: provenance to save with it; scale, settings and token count are filled in here.

    Raises:
        InputError: too few rows for one batch, or rows that are all zero or not finite.
    """
    return fit_with_history(
        architecture, rows, fitting, seed=seed, card=card, device=device, observers=observers
    )[0]


def fit_with_history(
    architecture: ReLU,
    rows: Rows | Float[Tensor, "rows d"],
    fitting: Fitting | None = None,
    *,
    seed: int = 0,
    card: Card | None = None,
    device: str = "cpu",
    observers: Sequence[Observer] = (),
) -> tuple[Dictionary, History]:
    """As `fit`, with the loop's history (error, l0, l1 at every step)."""
    source = TensorRows(rows) if isinstance(rows, Tensor) else rows
    fitting = fitting or Fitting()
    if len(source) < fitting.batch:
        raise InputError(
            f"{len(source)} rows are too few for a dictionary trained in batches of "
            f"{fitting.batch}; give more text or a smaller batch"
        )
    try:
        scale = mean_norm(source.chunks())
    except ValueError as error:
        raise InputError(f"{error}: there is nothing to train on") from None
    mean, _ = mean_and_covariance(source.chunks())
    objective = ReluObjective(
        architecture,
        (mean / scale).to(device),
        generator(seed, "start"),
        product_dtype(fitting.products, device),
    )
    history = _run(objective, source, scale, fitting, seed, device, observers)
    steps = fitting.steps(len(source))
    filled = (card or Card()).model_copy(
        update={
            "scale": scale,
            "seed": seed,
            "tokens": steps * fitting.batch,
            "settings": {**architecture.plain(), **fitting.plain()},
        }
    )
    return objective.dictionary(scale, filled), history


def _run(
    objective: ReluObjective,
    source: Rows,
    scale: float,
    fitting: Fitting,
    seed: int,
    device: str,
    observers: Sequence[Observer],
) -> History:
    steps = fitting.steps(len(source))
    optimizer = torch.optim.Adam(objective.parameters(), lr=fitting.rate, fused=True)
    resample_steps = {round(share * steps) for share in RESAMPLE_AT}
    draws = generator(seed, "resample")
    latest: list[Tensor] = []

    def scaled() -> Iterator[Tensor]:
        for batch in epochs(source, fitting.batch, generator(seed, "order")):
            yield batch.to(device) / scale

    def step(batch: Tensor) -> dict[str, Tensor]:
        latest[:] = [batch]
        return objective.step(batch)

    def after(index: int) -> None:
        if objective.settings.resample and index in resample_steps:
            objective.resample(latest[0], optimizer, draws)

    return train(
        step,
        scaled(),
        optimizer,
        steps=steps,
        schedule=warmup_hold_decay(),
        after=after,
        observers=observers,
        module=objective,
    )
