"""Numbers of sums over documents with 95 % intervals: documents are the independent units.

Intervals are Student's t with documents − 1 degrees of freedom and the delete-one jackknife's
variance (Efron & Tibshirani 1993, eq. 11.5). Fewer than `MIN_DOCUMENTS` have none.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from lorascope.measures.intervals import UNKNOWN, Interval

# With fewer documents, prompts or records nothing is known of their spread that would hold.
MIN_DOCUMENTS: Final = 8
TAIL: Final = 0.025
Sums = Float[Tensor, " documents"]


def ratio(
    numerator: Sums, denominator: Sums, tokens: Sums | None = None, *, tail: float = TAIL
) -> tuple[float, Interval]:
    """Σ numerator / Σ denominator and its interval; a mean over tokens is of sums and counts.

    Args:
        tokens: of each document, the denominators where left out; documents without any are
            passed over.
        tail: share of the law left out at each end.
    """
    rows = _rows(numerator, denominator, tokens)
    above, below = rows.sum(0).tolist()
    value = above / below if below else math.nan
    if len(rows) < MIN_DOCUMENTS or not math.isfinite(value):
        return value, UNKNOWN
    without = rows.sum(0) - rows
    spread = _spread((without[:, 0] / without[:, 1])[None])
    half = _t(len(rows), tail) * math.sqrt(float(spread[0, 0]))
    return value, (value - half, value + half) if math.isfinite(half) else UNKNOWN


def quotient(
    numerator: Sums, denominator: Sums, tokens: Sums, *, tail: float = TAIL
) -> tuple[float, Interval]:
    """Σ numerator / Σ denominator of two means over tokens, and Fieller's interval (1954).

    All ρ at which the mean of numerator − ρ · denominator has 0 in its interval, as `ratio` gives
    it: 0 lies outside exactly where it lies outside that of the mean of the numerators. (nan, nan)
    where the denominator's own interval holds 0.
    """
    counts = _plain(tokens)
    table = torch.stack([_plain(numerator), _plain(denominator), counts])[:, counts > 0]
    y, x = (float(row.sum() / table[2].sum()) for row in table[:2])
    value = y / x if x else math.nan
    if table.shape[1] < MIN_DOCUMENTS or not math.isfinite(value):
        return value, UNKNOWN
    without = table.sum(1, keepdim=True) - table
    (syy, sxy), (_, sxx) = _spread(without[:2] / without[2]).tolist()
    t2 = _t(table.shape[1], tail) ** 2
    a, b, c = x * x - t2 * sxx, x * y - t2 * sxy, y * y - t2 * syy
    if a <= 0:
        return value, UNKNOWN
    root = math.sqrt(max(b * b - a * c, 0.0))
    return value, ((b - root) / a, (b + root) / a)


def _rows(numerator: Sums, denominator: Sums, tokens: Sums | None) -> Float[Tensor, "some numbers"]:
    counts = _plain(denominator if tokens is None else tokens)
    return torch.stack([_plain(numerator), _plain(denominator)], 1)[counts > 0]


def _plain(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def _t(documents: int, tail: float) -> float:
    return float(stats.t.ppf(1 - tail, documents - 1))


def _spread(without: Float[Tensor, "numbers documents"]) -> Float[Tensor, "numbers numbers"]:
    """The jackknife's covariance of numbers, from each without every document in turn."""
    n = without.shape[1]
    apart = without - without.mean(1, keepdim=True)
    return (n - 1) / n * apart @ apart.T
