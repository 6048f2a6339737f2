"""95 % intervals, each a pure function that returns (low, high).

Where a single value leaves nothing to vary, both bounds are nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

Interval = tuple[float, float]

UNKNOWN: Interval = (math.nan, math.nan)
_TAIL = 0.025
# Counts held at once while resampling: 4 million take 32 MB.
_COUNTS = 4_000_000


def within(interval: Interval, low: float, high: float) -> Interval:
    """The interval cut to the values the number can take; nan stays nan."""
    return _cut(interval[0], low, high), _cut(interval[1], low, high)


def _cut(x: float, low: float, high: float) -> float:
    return x if math.isnan(x) else min(max(x, low), high)


def _t(degrees: int) -> float:
    return float(stats.t.ppf(1 - _TAIL, degrees))


def normal_interval(values: Float[Tensor, " n"]) -> Interval:
    """Of a mean of independent values, few (seeds) or many (latents): mean ± t_{n−1} · s/√n."""
    n = len(values)
    if n < 2:
        return UNKNOWN
    x = values.detach().cpu().double()
    mean, half = x.mean().item(), _t(n - 1) * x.std().item() / math.sqrt(n)
    return mean - half, mean + half


def wilson_interval(successes: int, n: int) -> Interval:
    """Of a share, successes of n (Wilson 1927); reaches exactly 0 and 1 at the ends."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return UNKNOWN
    z2 = float(stats.norm.ppf(1 - _TAIL)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def order_statistic_interval(values: Float[Tensor, " n"], q: float) -> Interval:
    """Of the q-quantile, free of any distribution: two of the sorted values.

    How many values lie below the true quantile is Binomial(n, q). Where n is too small for 95 %
    the smallest or largest value stands in, and coverage falls short.
    """
    n = len(values)
    if not 0 < q < 1:
        raise ValueError(f"q={q} is not between 0 and 1")
    if n < 2:
        return UNKNOWN
    ordered = values.detach().cpu().double().sort().values
    low = max(int(stats.binom.ppf(_TAIL, n, q)), 1)
    high = min(int(stats.binom.ppf(1 - _TAIL, n, q)) + 1, n)
    return ordered[low - 1].item(), ordered[high - 1].item()


def bootstrap(
    statistic: Callable[[Float[Tensor, "repeats m"]], Float[Tensor, " repeats"]],
    per_document: Float[Tensor, "documents m"],
    generator: torch.Generator,
    repeats: int = 1000,
    tail: float = _TAIL,
) -> Interval:
    """Percentile interval of a statistic of sums, whole documents drawn with replacement.

    `statistic` maps the m summed columns of every repeat to one number a repeat. Repeats in which
    it is nan (no token left) are passed over. `generator` is on the CPU; `tail` is the share of
    repeats left out at each end.
    """
    rows = per_document.detach().cpu().double()
    documents = len(rows)
    if documents < 2:
        return UNKNOWN
    results = []
    step = max(1, _COUNTS // documents)
    for start in range(0, repeats, step):
        drawn = (min(step, repeats - start), documents)
        picks = torch.randint(documents, drawn, generator=generator)
        counts = torch.zeros(drawn, dtype=torch.float64)
        counts.scatter_add_(1, picks, torch.ones((), dtype=torch.float64).expand(drawn))
        results.append(statistic(counts @ rows))
    bounds = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.nanquantile(torch.cat(results), bounds).tolist()
    return low, high


def bootstrap_ratio(
    numerator: Float[Tensor, " documents"],
    denominator: Float[Tensor, " documents"],
    generator: torch.Generator,
    repeats: int = 1000,
    tail: float = _TAIL,
) -> Interval:
    """Of Σ numerator / Σ denominator, by documents: a mean over tokens from sums and counts."""
    columns = torch.stack([numerator.detach().cpu().double(), denominator.detach().cpu().double()])
    return bootstrap(lambda sums: sums[:, 0] / sums[:, 1], columns.T, generator, repeats, tail)


def jackknife_interval(full: float, leave_one_out: Sequence[float]) -> Interval:
    """Of a number from the same number with each group left out: full ± t_{g−1} · standard error.

    Delete-one-group variance, (g−1)/g Σ (θ_(i) − mean θ)² (Efron & Tibshirani 1993, eq. 11.5).
    """
    groups = len(leave_one_out)
    if groups < 2:
        return UNKNOWN
    mean = math.fsum(leave_one_out) / groups
    variance = (groups - 1) / groups * math.fsum((x - mean) ** 2 for x in leave_one_out)
    half = _t(groups - 1) * math.sqrt(variance)
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
    mean, half = x.mean().item(), _t(repeats - 1) * x.std().item() * math.sqrt(1 + 1 / repeats)
    return mean - half, mean + half
