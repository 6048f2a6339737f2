"""Where a dictionary starts: its first directions and decoder bias, from a sample of its rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.mixing import Rows
from lorascope.activations.scaling import mean_and_covariance
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.architectures.settings import ArchitectureSettings

SAMPLE = 16384
# Directions start in the span that holds all but this share of the variance.
_OUTSIDE = 1e-3
_ROUNDS = 100


def start(
    settings: ArchitectureSettings, rows: Rows, scale: float, generator: torch.Generator
) -> TrainingStart:
    """First directions and decoder bias, in units of `scale`."""
    sample = sampled(rows, max(SAMPLE, 4 * rows.d_model)) / scale
    directions = torch.randn(settings.n_latents, rows.d_model, generator=generator)
    if settings.start == "subspace":
        span = active_subspace(sample)
        directions = directions @ span @ span.T
    bias = geometric_median(sample) if settings.bias == "median" else sample.mean(0)
    return TrainingStart(directions / directions.norm(dim=1, keepdim=True), bias)


def sampled(rows: Rows, count: int) -> Float[Tensor, "sample d"]:
    """About `count` rows in even steps through all of them; all if there are no more."""
    step = max(1, len(rows) // count)
    return torch.cat([chunk[::step].float() for chunk in rows.chunks()])


def active_subspace(rows: Float[Tensor, "rows d"]) -> Float[Tensor, "d k"]:
    """An orthonormal basis of the fewest principal axes that leave 0.1 % of the variance out."""
    _, covariance = mean_and_covariance([rows])
    values, vectors = torch.linalg.eigh(covariance.double())
    left_out = values.clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
    return vectors[:, left_out > _OUTSIDE].float()


def geometric_median(rows: Float[Tensor, "rows d"]) -> Float[Tensor, " d"]:
    """The point with the least mean distance to the rows (Weiszfeld's iteration).

    Unlike the mean it is not moved by a few rows of enormous norm.
    """
    point = rows.mean(0)
    for _ in range(_ROUNDS):
        weights = 1 / (rows - point).norm(dim=1).clamp(min=1e-8)
        moved = weights @ rows / weights.sum()
        if (moved - point).norm() <= 1e-6 * moved.norm():
            return moved
        point = moved
    return point
