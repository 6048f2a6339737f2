"""How flat a factor is: over how many latents its weight is spread."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.stats.intervals import prediction_interval


def effective_number(factor: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """(Σ a²)² / Σ a⁴ of each row, the participation ratio: n where all entries are alike, 1 where
    one is left, n/3 for Gaussian entries. 0 for a row of zeros."""
    squares = factor.double().square()
    return squares.sum(1).square() / squares.square().sum(1).clamp(min=1e-300)


def over_uniform(factor: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """max |a| √n / ‖a‖ of each row: how far the largest entry stands above 1/√n."""
    norms = factor.norm(dim=1).clamp(min=1e-30)
    return factor.abs().amax(1) / norms * math.sqrt(factor.shape[1])


def of_random_rows(
    n: int, random: torch.Generator, draws: int = 32
) -> dict[str, tuple[float, tuple[float, float]]]:
    """{measure: (level, bounds)} of Gaussian rows, which the factors start as."""
    rows = torch.randn(draws, n, generator=random)
    found = {}
    for name, measure in (("effective", effective_number), ("largest", over_uniform)):
        values = measure(rows).tolist()
        found[name] = (sum(values) / draws, prediction_interval(values))
    return found
