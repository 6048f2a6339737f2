"""One number of several seeds whose numbers were taken on the same texts.

Seeds of a fit or of an adapter are measured on the same documents, records or latents, so what
these leave open does not shrink with the number of seeds. Intervals of the number and of each of
its differences are of documents and seeds (`stats.hierarchical`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lorascope.results import Estimate, Null
from lorascope.stats.hierarchical import mean_reach, pooled_interval
from lorascope.stats.intervals import Interval, within

_POSITIVE = ("share", "latents", "ratio")


def over_fits(several: Sequence[Estimate]) -> Estimate:
    """The mean of numbers that differ in their seed alone; its key has no seed.

    A null that not every seed has is left out. Its level is the mean; its bounds are the widest.
    """
    first = several[0]
    key = replace(first.key, seed=None)
    if len(several) == 1:
        return first.at(key)
    value, interval = _mean([e.value for e in several], [e.interval for e in several])
    margins = [e.margin for e in several if e.margin is not None]
    names = [
        null.name
        for null in first.nulls
        if all(any(other.name == null.name for other in e.nulls) for e in several)
    ]
    nulls = [_null(name, several) for name in names]
    return replace(
        first,
        value=value,
        interval=within(interval, *_range(several)),
        nulls=tuple(sorted(nulls, key=lambda null: not null.rival)),
        key=key,
        margin=min(margins, default=None),
    )


def _range(several: Sequence[Estimate]) -> Interval:
    """What the number can be, as far as its unit and every seed's interval say."""
    first = several[0]
    low = min(e.interval[0] for e in several)
    high = max(e.interval[1] for e in several)
    bottom = 0.0 if first.unit in _POSITIVE and low >= 0 else -math.inf
    return bottom, 1.0 if first.unit == "share" and high <= 1 else math.inf


def _null(name: str, several: Sequence[Estimate]) -> Null:
    same = [next(null for null in e.nulls if null.name == name) for e in several]
    gaps = [e.value - null.level for e, null in zip(several, same, strict=True)]
    differences = [e.difference(null) for e, null in zip(several, same, strict=True)]
    return Null(
        name,
        math.fsum(null.level for null in same) / len(same),
        min(null.low for null in same),
        max(null.high for null in same),
        any(null.rival for null in same),
        _mean(gaps, differences)[1],
        draws=sum(null.draws for null in same),
    )


def _mean(values: Sequence[float], intervals: Sequence[Interval]) -> tuple[float, Interval]:
    """The mean over seeds, and its interval; (nan, nan) where a seed has none."""
    reach = mean_reach(list(zip(values, intervals, strict=True)))
    return math.fsum(values) / len(values), pooled_interval(values, reach)
