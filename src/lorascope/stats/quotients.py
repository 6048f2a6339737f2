"""A ratio of two means over tokens whose interval leaves 0 where its numerator's does."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.stats.documents import weights
from lorascope.stats.intervals import MIN_DOCUMENTS, TAIL, UNKNOWN, Interval, t_quantile

Sums = Float[Tensor, " documents"]


def quotient(
    numerator: Sums, denominator: Sums, tokens: Sums, *, tail: float = TAIL
) -> tuple[float, Interval]:
    """Σ numerator / Σ denominator by document, weighed as in `stats.documents`, and Fieller's
    interval (1954) with the jackknife's (co)variances.

    All ρ at which the mean over tokens of numerator − ρ · denominator is within t standard errors
    of 0. (nan, nan) where the denominator's own mean is, and for fewer than 8 documents.
    """
    counts = tokens.detach().cpu().double()
    table = torch.stack([numerator.detach().cpu(), denominator.detach().cpu(), counts]).double()
    table = (table * weights(counts))[:, counts > 0]
    y, x = (float(row.sum() / table[2].sum()) for row in table[:2])
    n = table.shape[1]
    value = y / x if x else math.nan
    if n < MIN_DOCUMENTS or not math.isfinite(value):
        return value, UNKNOWN
    without = table.sum(1, keepdim=True) - table
    means = without[:2] / without[2]
    apart = means - means.mean(1, keepdim=True)
    (syy, sxy), (_, sxx) = ((n - 1) / n * apart @ apart.T).tolist()
    t2 = t_quantile(n - 1, tail) ** 2
    a, b, c = x * x - t2 * sxx, x * y - t2 * sxy, y * y - t2 * syy
    if a <= 0:
        return value, UNKNOWN
    root = math.sqrt(max(b * b - a * c, 0.0))
    return value, ((b - root) / a, (b + root) / a)
