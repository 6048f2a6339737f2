"""The size of the delta compared with numeric noise, and its effective rank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.measures.rows import HeldOut, by_document
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ISOTROPIC, NOISE_FLOOR
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import (
    MIN_DOCUMENTS,
    UNKNOWN,
    jackknife_interval,
    within,
)

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
        (Null.exact(NOISE_FLOOR, floor),),
        place,
    )
    relative = Estimate(
        "delta_norm.relative",
        share,
        around_share,
        len(rows),
        "ratio",
        (Null.exact(NOISE_FLOOR, floor / base_norm),),
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
    """Effective rank of the deltas, free of its small-sample bias, beside isotropic rows'.

    The entropy of the eigenvalues of N rows is too small by about d²/N terms. Its delete-one-group
    jackknife over ten groups of documents (Efron & Tibshirani 1993, section 10.6) takes that away:
    g H − (g − 1) mean H_(i), of which the rank is the exponential. Interval: the same jackknife's,
    in the entropy. Isotropic rows have rank d.

    Where nine tenths of the rows are no more than d, the value is that of the rows as they are,
    without an interval, beside that of as many isotropic Gaussian rows.
    """
    n, d = rows.delta.shape
    parts = _moments(rows.delta, rows.documents)
    plain = effective_rank(_covariance(parts))
    others = [parts[:g] + parts[g + 1 :] for g in range(len(parts))]
    left = min((sum(count for *_, count in kept) for kept in others), default=0)
    if len(parts) < MIN_DOCUMENTS or left <= d:
        chance = _as_many(n, d, seed)
        return Estimate("delta_rank", plain, UNKNOWN, n, "dimensions", (chance,), place)
    entropies = [math.log(effective_rank(_covariance(kept))) for kept in others]
    value = unbiased(math.log(plain), entropies)
    low, high = jackknife_interval(value, entropies)
    return Estimate(
        "delta_rank",
        min(math.exp(value), float(d)),
        within((math.exp(low), math.exp(high)), 1.0, float(d)),
        n,
        "dimensions",
        (Null.exact(ISOTROPIC, float(d)),),
        place,
    )


def unbiased(whole: float, without: Sequence[float]) -> float:
    """A number less its bias of order 1/n, from the number without each group in turn."""
    groups = len(without)
    return groups * whole - (groups - 1) * math.fsum(without) / groups


def _as_many(n: int, d: int, seed: int) -> Null:
    drawn = []
    for repeat in range(RANK_REPEATS):
        random = generator(seed, "effective rank", repeat)
        drawn.append(effective_rank(torch.randn(n, d, generator=random).T.cov()))
    return Null.drawn(ISOTROPIC, drawn, high=float(d))


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
