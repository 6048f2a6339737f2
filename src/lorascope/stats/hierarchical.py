"""One interval of a mean over seeds that were all measured on the same documents.

    value_s = truth + document error + seed error_s

The document error is the same for every seed, and the spread between seeds says nothing of it: an
interval over seeds alone covers 13 to 46 % where documents vary as much as they do in an audit.
With H half of a single number's interval over documents, v_d = (H/z)² its variance, v_s = s²/n the
variance of the mean of n seeds, and z and t the 97.5 % quantiles of the normal distribution and of
Student's t with n − 1 degrees of freedom,

    half² = z² (v_d + v_s) + (t² − z²) v_s · (v_s / (v_d + v_s))^(3/4).

It is H where the seeds agree and t √v_s where they are all that varies. Between the two, t
quantiles at Satterthwaite's degrees of freedom, V²/(v_s²/(n−1)), cover as little as 88 % for two
seeds and 92 % for three: they take the few seeds' own spread at its word. With the power 3/4 it is
93 to 97 % for two seeds or more, whatever share of the variance is the documents'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lorascope.stats.intervals import TAIL, UNKNOWN, Interval, normal_quantile, t_quantile

_POWER = 0.75


def pooled_interval(values: Sequence[float], reach: tuple[float, float] | None = None) -> Interval:
    """Of the mean of `values`, one a seed.

    Args:
        reach: how far a single number's interval over the documents that all share goes below it
            and above it; (nan, nan), as for too few documents, gives (nan, nan). None where every
            number has units of its own (a dictionary's latents): their spread then holds all.
    """
    mean = math.fsum(values) / len(values)
    if reach is None:
        return UNKNOWN if len(values) < 2 else _around(mean, *(_half(values, 0.0),) * 2)
    return _around(mean, *(_half(values, arm) for arm in reach))


def mean_reach(
    numbers: Sequence[tuple[float, Interval]],
) -> tuple[float, float]:
    """How far intervals go below and above their values, on average."""
    down = math.fsum(value - low for value, (low, _) in numbers)
    up = math.fsum(high - value for value, (_, high) in numbers)
    return down / len(numbers), up / len(numbers)


def _around(mean: float, down: float, up: float) -> Interval:
    return mean - down, mean + up


def _half(values: Sequence[float], documents: float) -> float:
    n = len(values)
    if n < 2:
        return documents
    mean = math.fsum(values) / n
    seeds = math.fsum((x - mean) ** 2 for x in values) / (n - 1) / n
    z, t = normal_quantile(1 - TAIL), t_quantile(n - 1)
    whole = (documents / z) ** 2 + seeds
    if not whole > 0:
        return whole
    excess = (t * t - z * z) * seeds * (seeds / whole) ** _POWER
    return math.sqrt(z * z * whole + excess)
