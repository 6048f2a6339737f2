"""How large the delta is, beside numeric noise, and over how many dimensions it spreads."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.measures.rows import HeldOut, by_document
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import jackknife_interval, prediction_interval

GROUPS = 10
RANK_REPEATS = 3


def norm_estimates(rows: HeldOut, floor: float, place: Key) -> list[Estimate]:
    """Delta norm (table 4) and its ratio to the base norm, beside the noise floor.

    Args:
        floor: mean norm of numeric noise at this site, in stream units.
    """
    deltas, counts = by_document(rows.delta.norm(dim=-1), rows.documents)
    bases, _ = by_document(rows.base.norm(dim=-1), rows.documents)
    base_norm, _ = ratio(bases, counts)
    mean, around = ratio(deltas, counts)
    share, around_share = ratio(deltas, bases, counts)
    norm = Estimate(
        "delta_norm",
        mean,
        around,
        len(rows),
        "stream units",
        (Null.exact("numeric noise floor", floor),),
        place,
    )
    relative = Estimate(
        "delta_norm.relative",
        share,
        around_share,
        len(rows),
        "ratio",
        (Null.exact("numeric noise floor", floor / base_norm),),
        place,
    )
    return [norm, relative]


def effective_rank(covariance: Float[Tensor, "d d"]) -> float:
    """exp of the entropy of the covariance's normalised eigenvalues: between 1 and d."""
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0.0)
    shares = values / values.sum()
    shares = shares[shares > 0]
    return math.exp(float(-(shares * shares.log()).sum()))


def rank_estimate(rows: HeldOut, place: Key, seed: int = 0) -> Estimate:
    """Effective rank of the deltas beside that of as many isotropic Gaussian rows."""
    n, d = rows.delta.shape
    parts = _moments(rows.delta, rows.documents)
    value = effective_rank(_covariance(parts))
    others = [parts[:g] + parts[g + 1 :] for g in range(len(parts))] if len(parts) > 1 else []
    without = [effective_rank(_covariance(kept)) for kept in others]
    drawn = []
    for repeat in range(RANK_REPEATS):
        random = generator(seed, "effective rank", repeat)
        noise = torch.randn(n, d, generator=random)
        drawn.append(effective_rank(noise.T.cov()))
    low, high = prediction_interval(drawn)
    chance = Null("isotropic", sum(drawn) / len(drawn), low, min(high, float(d)))
    return Estimate(
        "delta_rank",
        value,
        jackknife_interval(value, without),
        n,
        "dimensions",
        (chance,),
        place,
    )


def _moments(
    rows: Float[Tensor, "rows d"], documents: Int[Tensor, " rows"]
) -> list[tuple[Tensor, Tensor, int]]:
    """(sum, second moment, count) of each group of documents."""
    _, index = documents.unique(return_inverse=True)
    groups = min(GROUPS, int(index.max()) + 1)
    found = []
    for group in range(groups):
        part = rows[index % groups == group].double()
        found.append((part.sum(0), part.T @ part, len(part)))
    return found


def _covariance(parts: list[tuple[Tensor, Tensor, int]]) -> Float[Tensor, "d d"]:
    total = sum(count for _, _, count in parts)
    mean = torch.stack([sums for sums, _, _ in parts]).sum(0) / total
    second = torch.stack([moment for _, moment, _ in parts]).sum(0)
    return (second - total * mean.outer(mean)) / (total - 1)
