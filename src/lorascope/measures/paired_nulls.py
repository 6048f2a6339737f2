"""Nulls measured on the same documents as the value, with the interval of the difference.

`paired`: another way of running the model; the difference is taken document by document.
`drawn`: the same number of several draws. The difference from the next draw: the draws' prediction
interval and the interval over documents of value − mean draw, squares added on each side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.results import Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import UNKNOWN, Interval, or_point, prediction_interval

Sums = Float[Tensor, " documents"]
Measured = tuple[float, Interval]


def over_tokens(tokens: Sums) -> Callable[[Sums], Measured]:
    """What makes a mean over tokens, with its interval over documents, of sums by document."""
    return lambda sums: ratio(sums, tokens)


def paired(
    name: str,
    value: Sums,
    null: Sums,
    mean: Callable[[Sums], Measured],
    *,
    rival: bool = False,
) -> Null:
    """A null from sums of the same documents.

    Args:
        value, null: of both, summed by document.
        mean: `over_tokens`.
    """
    level, interval = mean(null)
    low, high = or_point(level, interval)
    return Null(name, level, low, high, rival, mean(value - null)[1])


def drawn(
    name: str,
    value: Sums,
    draws: Sequence[Sums],
    mean: Callable[[Sums], Measured],
    *,
    rival: bool = False,
) -> list[Null]:
    """A null from draws on the same documents; none without draws, no interval for a single one."""
    if not draws:
        return []
    levels = [mean(draw)[0] for draw in draws]
    level = math.fsum(levels) / len(levels)
    bounds = prediction_interval(levels) if len(levels) > 1 else UNKNOWN
    gap, over_documents = mean(value - torch.stack([draw.double() for draw in draws]).mean(0))
    low, high = or_point(level, bounds)
    apart = added(gap, over_documents, (gap - (bounds[1] - level), gap + (level - bounds[0])))
    return [Null(name, level, low, high, rival, apart, draws=len(levels))]


def added(value: float, *intervals: Interval) -> Interval:
    """One interval of what several independent sources leave open, squares added on each side.

    (nan, nan) if one of them is not known.
    """
    down = math.hypot(*(value - low for low, _ in intervals))
    up = math.hypot(*(high - value for _, high in intervals))
    return value - down, value + up


def scaled(null: Null, unit: float, about: float = 0.0) -> Null:
    """The null of (about − number)/unit: of a loss recovered, from the null of a cost.

    With a negative unit and about 0 it is the number in other units.
    """
    low, high = sorted((about - end) / unit for end in (null.low, null.high))
    level, apart = (about - null.level) / unit, null.difference
    if apart is not None:
        first, second = (-end / unit for end in apart)
        apart = (second, first) if unit > 0 else (first, second)
    return Null(null.name, level, low, high, null.rival, apart, null.p, null.draws)
