"""95 % intervals, each a pure function that returns (low, high).

Where a single value leaves nothing to vary, both bounds are nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from scipy import optimize, stats
from torch import Tensor

Interval = tuple[float, float]

UNKNOWN: Interval = (math.nan, math.nan)
# Share of the law left out at each end of a 95 % interval.
TAIL = 0.025
# With fewer documents, prompts or records nothing is known of their spread that would hold.
MIN_DOCUMENTS = 8


def within(interval: Interval, low: float, high: float) -> Interval:
    """The interval cut to the values the number can take; nan stays nan."""
    return _cut(interval[0], low, high), _cut(interval[1], low, high)


def or_point(value: float, interval: Interval) -> Interval:
    """The interval, or the value alone where none is known: a reference level stands for itself."""
    return (value, value) if math.isnan(interval[0]) else interval


def detectable(interval: Interval) -> float:
    """The smallest true difference that data with this interval of a difference show.

    (z₀.₉₇₅ + z₀.₈) standard errors, the standard error read off the half-width: a difference of
    this size leaves zero in four of five such samples. nan where there is no interval.
    """
    low, high = interval
    quantile = normal_quantile(1 - TAIL)
    return (high - low) / 2 * (quantile + normal_quantile(0.8)) / quantile


def _cut(x: float, low: float, high: float) -> float:
    return x if math.isnan(x) else min(max(x, low), high)


@cache
def normal_quantile(p: float) -> float:
    """Of the normal distribution."""
    return float(stats.norm.ppf(p))


@cache
def t_quantile(degrees: float, tail: float = TAIL) -> float:
    """Of Student's t; the normal distribution's at infinitely many degrees."""
    return float(stats.t.ppf(1 - tail, degrees))


def normal_interval(values: Float[Tensor, " n"]) -> Interval:
    """Of a mean of independent values, few (seeds) or many (latents): mean ± t_{n−1} · s/√n."""
    n = len(values)
    if n < 2:
        return UNKNOWN
    x = values.detach().cpu().double()
    mean, half = x.mean().item(), t_quantile(n - 1) * x.std().item() / math.sqrt(n)
    return mean - half, mean + half


def wilson_interval(successes: int, n: int) -> Interval:
    """Of a share, successes of n (Wilson 1927); reaches exactly 0 and 1 at the ends."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    return wilson_share(successes / n, n) if n else UNKNOWN


def wilson_share(share: float, n: float) -> Interval:
    """The same of a share of n independent units, where n need not be whole."""
    z2 = normal_quantile(1 - TAIL) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def newcombe_interval(successes: tuple[int, int], n: tuple[int, int]) -> Interval:
    """Of the difference of two independent shares, first − second (Newcombe 1998, method 10)."""
    if min(n) == 0:
        return UNKNOWN
    p, q = successes[0] / n[0], successes[1] / n[1]
    first, second = (wilson_interval(s, m) for s, m in zip(successes, n, strict=True))
    return difference_interval((p, first), (q, second))


def difference_interval(first: tuple[float, Interval], second: tuple[float, Interval]) -> Interval:
    """Of first − second, two independent numbers with intervals: square and add (Newcombe 1998)."""
    (p, (low, high)), (q, (other_low, other_high)) = first, second
    down, up = math.hypot(p - low, other_high - q), math.hypot(high - p, q - other_low)
    return p - q - down, p - q + up


def share_ratio_interval(successes: tuple[int, int], n: tuple[int, int]) -> Interval:
    """Of the ratio of two independent shares, first / second, from their Wilson intervals.

    MOVER-R (Donner & Zou 2012, eq. 9). (nan, nan) where the second may be 0: no upper end.
    """
    if min(n) == 0 or successes[1] == 0:
        return UNKNOWN
    p, q = successes[0] / n[0], successes[1] / n[1]
    (low, high), (other_low, other_high) = (
        wilson_interval(s, m) for s, m in zip(successes, n, strict=True)
    )

    def end(bound: float, other: float, side: int) -> float:
        a, c = other * (2 * q - other), bound * (2 * p - bound)
        root = math.sqrt(max((p * q) ** 2 - a * c, 0.0))
        # The form without a difference of near-equal numbers where a is near 0.
        return (p * q + root) / a if side > 0 else c / (p * q + root) if p else 0.0

    return max(0.0, end(low, other_high, -1)), end(high, other_low, 1)


def order_statistic_interval(
    values: Float[Tensor, " n"], q: float, effective: float | None = None
) -> Interval:
    """Of the q-quantile, free of any distribution: two of the sorted values, or between two.

    The i-th of n values has the true quantile above it with the probability of a Beta(i, n+1−i)
    below q, which holds nearly for a fractional i, read between neighbours (Hutson 1999): whole
    ones cover up to 99 % of few values. (nan, nan) where an end would lie beyond all values, as for
    the median of 5 or the 90th percentile of 34.

    Args:
        effective: how many independent values these stand for; all of them where left out.
    """
    n = len(values)
    if not 0 < q < 1:
        raise ValueError(f"q={q} is not between 0 and 1")
    size = n if effective is None else min(effective, n)
    if size < 2:
        return UNKNOWN
    ends = [_rank(size, q, share) for share in (1 - TAIL, TAIL)]
    # Beyond the first or last value; with rounding, as two values have a rank of exactly 1.
    if min(ends) < 1 / (size + 1) or max(ends) > size / (size + 1):
        return UNKNOWN
    ordered = values.detach().cpu().double().sort().values
    places = torch.tensor(ends, dtype=torch.float64) * (n + 1) - 1
    below = places.floor().long().clamp(0, n - 2)
    low, high = torch.lerp(ordered[below], ordered[below + 1], places - below).tolist()
    return max(low, float(ordered[0])), min(high, float(ordered[-1]))


def _rank(n: float, q: float, share: float) -> float:
    """The u with Beta((n+1)u, (n+1)(1−u)) below q with this probability."""

    def gap(u: float) -> float:
        return float(stats.beta.cdf(q, (n + 1) * u, (n + 1) * (1 - u))) - share

    return float(optimize.brentq(gap, 1e-9, 1 - 1e-9, xtol=1e-10))


def jackknife_interval(full: float, leave_one_out: Sequence[float]) -> Interval:
    """Of a number from the same number with each group left out: full ± t_{g−1} · standard error.

    Delete-one-group variance, (g−1)/g Σ (θ_(i) − mean θ)² (Efron & Tibshirani 1993, eq. 11.5).
    """
    groups = len(leave_one_out)
    if groups < 2:
        return UNKNOWN
    mean = math.fsum(leave_one_out) / groups
    variance = (groups - 1) / groups * math.fsum((x - mean) ** 2 for x in leave_one_out)
    half = t_quantile(groups - 1) * math.sqrt(variance)
    return full - half, full + half


def prediction_interval(draws: Sequence[float]) -> Interval:
    """Where the next draw falls, given R draws: mean ± t_{R−1} · s · √(1 + 1/R).

    ValueError with fewer than 2 draws: they say nothing of the spread.
    """
    repeats = len(draws)
    if repeats < 2:
        raise ValueError(f"a prediction interval needs at least 2 draws, got {repeats}")
    x = torch.tensor(draws, dtype=torch.float64)
    # Equal draws must give exactly their value: a mean of equal floats can be off by one rounding.
    if bool((x == x[0]).all()):
        return float(x[0]), float(x[0])
    mean, half = (
        x.mean().item(),
        t_quantile(repeats - 1) * x.std().item() * math.sqrt(1 + 1 / repeats),
    )
    return mean - half, mean + half
