"""Numbers of sums over documents, with intervals that hold for as few as eight.

A number is a function of sums over documents: a mean over tokens is Σ values / Σ tokens. Documents
are the independent units, tokens within one are not. Intervals are Student's t with documents − 1
degrees of freedom and the delete-one jackknife's variance (Efron & Tibshirani 1993, eq. 11.5),

    θ ± t · √((n−1)/n Σ (θ_(i) − mean θ)²).

With lognormal sizes and t-distributed document effects these cover 94 to 96 % from 8 documents on;
bootstrap-t covers 91 to 95 %, BCa and percentiles 85 to 95 % (`planted.coverage`). Where the same
number in every document has one sign, the jackknife is of its logarithm: the interval keeps that
sign, and its longer side is where a skewed law has its tail.

Weights. A document's weight is its share of the tokens. Of ten documents or more each weighs a
tenth at most: longer ones count as if they were no longer, their own mean unchanged. Eight or nine
weigh alike. Fewer have no interval and the weights they have. The number and its interval are of
the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.stats.intervals import MIN_DOCUMENTS, TAIL, UNKNOWN, Interval, t_quantile

MOST_OF_ONE = 0.1
_ENOUGH = round(1 / MOST_OF_ONE)
Statistic = Callable[[Float[Tensor, "repeats m"]], Float[Tensor, " repeats"]]


def weights(tokens: Float[Tensor, " documents"]) -> Float[Tensor, " documents"]:
    """What every document's sums are multiplied by, so that none has more than a tenth of all.

    Documents without tokens are not counted and keep a factor of 1.
    """
    sizes = tokens.detach().cpu().double()
    some = sizes > 0
    count = int(some.sum())
    if count < MIN_DOCUMENTS:
        return torch.ones_like(sizes)
    most = float(sizes[some].mean()) if count < _ENOUGH else _longest(sizes[some])
    if count < _ENOUGH:
        return torch.where(some, most / sizes.clamp(min=1e-300), 1.0)
    return torch.where(sizes > most, most / sizes.clamp(min=1e-300), 1.0)


def _longest(sizes: Float[Tensor, " documents"]) -> float:
    """The L with L = Σ min(size, L) / 10; infinite where no document is longer."""
    ordered = sizes.sort(descending=True).values
    rest = ordered.sum()
    if ordered[0] <= MOST_OF_ONE * rest * (1 + 1e-12):
        return math.inf
    for cut in range(1, _ENOUGH):
        rest = rest - ordered[cut - 1]
        longest = float(MOST_OF_ONE * rest / (1 - MOST_OF_ONE * cut))
        if ordered[cut] <= longest:
            break
    # At nine cut documents the tenth is as long as they at most.
    return longest


def ratio(
    numerator: Float[Tensor, " documents"],
    denominator: Float[Tensor, " documents"],
    tokens: Float[Tensor, " documents"] | None = None,
    *,
    tail: float = TAIL,
) -> tuple[float, Interval]:
    """Σ numerator / Σ denominator over documents, and its interval.

    A mean over tokens is of sums and counts; a ratio of two sums (recovery, FVU) needs `tokens`
    for the documents' weights. Where a denominator is not positive in every document the interval
    is Fieller's, and (nan, nan) where that has no end: the denominator may be 0.

    Args:
        tokens: of each document; the denominators where left out.
        tail: share of the law left out at each end.
    """
    counts = denominator if tokens is None else tokens
    rows = weighed(torch.stack([_plain(numerator), _plain(denominator)], 1), counts)
    above, below = rows.sum(0).tolist()
    value = above / below if below else math.nan
    if len(rows) < MIN_DOCUMENTS or not math.isfinite(value):
        return value, UNKNOWN
    if not bool((rows[:, 1] > 0).all()):
        return value, fieller(rows[:, 0], rows[:, 1], tail=tail)
    return value, _jackknife(lambda sums: sums[:, 0] / sums[:, 1], rows, tail, rows[:, 0])


def smooth(
    statistic: Statistic,
    per_document: Float[Tensor, "documents m"],
    tokens: Float[Tensor, " documents"],
) -> tuple[float, Interval]:
    """Any smooth function of sums over documents (a correlation, a difference of two ratios).

    `statistic` maps summed columns, one row a set of documents, to numbers. nan where it is.
    """
    rows = weighed(_plain(per_document), tokens)
    value = float(statistic(rows.sum(0)[None])[0])
    if len(rows) < MIN_DOCUMENTS or not math.isfinite(value):
        return value, UNKNOWN
    return value, _jackknife(statistic, rows, TAIL)


def fieller(
    numerator: Float[Tensor, " n"], denominator: Float[Tensor, " n"], *, tail: float = TAIL
) -> Interval:
    """Fieller's (1954) interval of a ratio of two means of paired numbers.

    All ρ with (ȳ − ρ x̄)² ≤ t² (s_yy − 2 ρ s_xy + ρ² s_xx) / n. (nan, nan) where these reach to
    infinity, as they do where x̄ may be 0, and for fewer than 8 pairs.
    """
    n = len(numerator)
    if n < MIN_DOCUMENTS:
        return UNKNOWN
    table = torch.stack([_plain(numerator), _plain(denominator)])
    # In units of each: squares stay within range.
    units = table.abs().amax(1).clamp(min=1e-300)
    (syy, sxy), (_, sxx) = ((table / units[:, None]).cov() / n).tolist()
    y, x = (table / units[:, None]).mean(1).tolist()
    t2 = t_quantile(n - 1, tail) ** 2
    a, b, c = x * x - t2 * sxx, x * y - t2 * sxy, y * y - t2 * syy
    if a <= 0:
        return UNKNOWN
    root = math.sqrt(max(b * b - a * c, 0.0))
    unit = float(units[0] / units[1])
    return (b - root) / a * unit, (b + root) / a * unit


def one_less(found: tuple[float, Interval]) -> tuple[float, Interval]:
    """1 − a number, its interval turned round with it."""
    value, (low, high) = found
    return 1 - value, (1 - high, 1 - low)


def _plain(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def weighed(
    rows: Float[Tensor, "documents m"], tokens: Float[Tensor, " documents"]
) -> Float[Tensor, "some m"]:
    """Sums times `weights`, of the documents that have tokens."""
    sizes = _plain(tokens)
    return (rows * weights(sizes)[:, None])[sizes > 0]


def _jackknife(
    statistic: Statistic,
    rows: Float[Tensor, "documents m"],
    tail: float,
    signed: Float[Tensor, " documents"] | None = None,
) -> Interval:
    whole = float(statistic(rows.sum(0)[None])[0])
    without = statistic(rows.sum(0) - rows)
    if not bool(without.isfinite().all()):
        return UNKNOWN
    t = t_quantile(len(rows) - 1, tail)
    if signed is not None and bool((signed > 0).all() | (signed < 0).all()):
        factor = math.exp(t * standard_error((without / whole).log().tolist()))
        low, high = sorted((whole / factor, whole * factor))
        return low, high
    half = t * standard_error(without.tolist())
    return whole - half, whole + half


def standard_error(without: Sequence[float]) -> float:
    """The jackknife's, from the number without each unit in turn."""
    n = len(without)
    mean = math.fsum(without) / n
    return math.sqrt((n - 1) / n * math.fsum((x - mean) ** 2 for x in without))
