"""Two shares of the same prompts: their difference, their ratio, and whether they differ.

n prompts fall into a (both show it), b (the first alone), c (the second alone) and d (neither).
Each function takes the two columns; they are paired by position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from lorascope.stats.intervals import UNKNOWN, Interval, wilson_interval

# A ratio over fewer successes than this says next to nothing.
LEAST = 8
Shown = Sequence[bool]


def mcnemar(first: Shown, second: Shown) -> float:
    """Exact two-sided p-value of equal shares: b of b + c, binomial with 1/2 (McNemar 1947)."""
    _, b, c, _ = _counts(first, second)
    return float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def difference(first: Shown, second: Shown) -> Interval:
    """95 % interval of the first share less the second.

    Newcombe's (1998, Statistics in Medicine 17:2635) method 10: Wilson's intervals of both shares,
    put together by their correlation φ, with n/2 taken off the counts' product where it is
    positive. (nan, nan) without prompts.
    """
    a, b, c, d = _counts(first, second)
    n = a + b + c + d
    if n == 0:
        return UNKNOWN
    one, other = (a + b) / n, (a + c) / n
    low, high = wilson_interval(a + b, n)
    low2, high2 = wilson_interval(a + c, n)
    phi = _phi(a, b, c, d)
    gap = one - other
    down = _together(one - low, high2 - other, phi)
    up = _together(high - one, other - low2, phi)
    return gap - down, gap + up


def ratio(first: Shown, second: Shown) -> Interval:
    """95 % interval of the first share over the second.

    MOVER (Donner & Zou 2012, Statistical Methods in Medical Research 21:347) of Wilson's
    intervals, with the shares' correlation. (nan, nan) where the second has fewer than `LEAST`
    successes.
    """
    a, b, c, d = _counts(first, second)
    n = a + b + c + d
    if a + c < LEAST:
        return UNKNOWN
    one, other = (a + b) / n, (a + c) / n
    low, high = wilson_interval(a + b, n)
    low2, high2 = wilson_interval(a + c, n)
    phi = _plain_phi(a, b, c, d)
    product = one * other
    cross = product - phi * (one - low) * (high2 - other)
    inside = cross**2 - low * (2 * one - low) * high2 * (2 * other - high2)
    bottom = (cross - math.sqrt(max(inside, 0.0))) / (high2 * (2 * other - high2))
    cross = product - phi * (high - one) * (other - low2)
    inside = cross**2 - high * (2 * one - high) * low2 * (2 * other - low2)
    top = (cross + math.sqrt(max(inside, 0.0))) / (low2 * (2 * other - low2))
    return max(bottom, 0.0), top


def _counts(first: Shown, second: Shown) -> tuple[int, int, int, int]:
    pairs = [(bool(one), bool(other)) for one, other in zip(first, second, strict=True)]
    cells = ((True, True), (True, False), (False, True), (False, False))
    a, b, c, d = (pairs.count(cell) for cell in cells)
    return a, b, c, d


def _phi(a: int, b: int, c: int, d: int) -> float:
    """Newcombe's φ: the products' difference, n/2 less where that leaves it positive, else 0."""
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    apart = a * d - b * c
    corrected = max(apart - (a + b + c + d) / 2, 0.0) if apart > 0 else apart
    return corrected / math.sqrt(product)


def _plain_phi(a: int, b: int, c: int, d: int) -> float:
    """Pearson's correlation of the two columns; 0 where one of them does not vary."""
    product = (a + b) * (c + d) * (a + c) * (b + d)
    return (a * d - b * c) / math.sqrt(product) if product else 0.0


def _together(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))
