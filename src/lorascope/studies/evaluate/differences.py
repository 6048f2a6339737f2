"""The same number of two evaluations, held against each other on the units that both have.

Where both were taken on the same documents, texts, sets, letters, classes or items, the difference
is paired: of sums over documents the jackknife of (Σa₂/Σb₂) − (Σa₁/Σb₁), of plain means Student's t
over the units' differences. Both numbers are then of the shared units alone. What has no units in
common by its nature (shares of latents, explanations of them) is compared by both intervals.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.results import Estimate, Interval, Key, Null
from lorascope.results.null_names import SAME_IN_BOTH
from lorascope.stats.documents import ratio, smooth
from lorascope.stats.intervals import MIN_DOCUMENTS, difference_interval, normal_interval
from lorascope.studies.evaluate.units import DOCUMENTS, Units

DIFFERENCE = "evaluate.difference"
# Fewest units that two runs must share, by kind; two of any other kind.
_FEWEST = {DOCUMENTS: MIN_DOCUMENTS, "texts": 8, "items": 8}
Value = tuple[float, Interval]


@dataclass(frozen=True)
class Compared:
    """One number of both sides.

    Attributes:
        estimate: second less first; its key is the second's, `compared` names the first.
        first, second: value and interval of each, on what both have.
        kind: what is paired, or "" where nothing is.
        shared, units: how many are paired, and how many each side has.
        sites: where each stands.
    """

    estimate: Estimate
    first: Value
    second: Value
    kind: str
    shared: int
    units: tuple[int, int]
    sites: tuple[str, str]


def paired(first: Units, second: Units, key: Key, unit: str) -> Compared | None:
    """Second less first on the units of both; None where they share too few.

    Args:
        key: of the difference.
        unit: of the number.
    """
    own, theirs = _places(first.ids), _places(second.ids)
    common = [one for one in own if one in theirs]
    if first.kind != second.kind or len(common) < _FEWEST.get(first.kind, 2):
        return None
    one = _columns(first, [own[place] for place in common])
    other = _columns(second, [theirs[place] for place in common])
    values = (_value(first, one), _value(second, other))
    if first.below and second.below:
        columns = torch.stack([other[:, 0], other[:, 1], one[:, 0], one[:, 1]], 1)
        value, interval = smooth(_gap, columns, one[:, 2])
    else:
        gaps = other[:, 0] - one[:, 0]
        value, interval = float(gaps.mean()), normal_interval(gaps)
    if math.isnan(value):
        return None
    counts, sites = (len(own), len(theirs)), (first.key.site, second.key.site)
    found = _estimate(value, interval, len(common), unit, key)
    return Compared(found, *values, first.kind, len(common), counts, sites)


def unpaired(first: Estimate, second: Estimate, key: Key) -> Compared:
    """Second less first of two numbers without common units, from both intervals."""
    values = ((first.value, first.interval), (second.value, second.interval))
    interval = difference_interval(values[1], values[0])
    count = min(first.n, second.n)
    found = _estimate(second.value - first.value, interval, count, second.unit, key)
    sites = (first.key.site, second.key.site)
    return Compared(found, *values, "", 0, (first.n, second.n), sites)


def place_of(key: Key, *, site: bool) -> Key:
    """What two sides' numbers have in common: condition, set, k; the site where there are some."""
    return replace(key, adapter="", dictionary="", site=key.site if site else "")


def _estimate(value: float, interval: Interval, n: int, unit: str, key: Key) -> Estimate:
    nulls = (Null.exact(SAME_IN_BOTH, 0.0, rival=True),)
    return Estimate(DIFFERENCE, value, interval, n, unit, nulls, key)


def _places(ids: Sequence[str]) -> dict[tuple[str, int], int]:
    """Where each unit stands; those of one name by their order."""
    seen: Counter[str] = Counter()
    found = {}
    for place, name in enumerate(ids):
        found[name, seen[name]] = place
        seen[name] += 1
    return found


def _columns(units: Units, places: Sequence[int]) -> Float[Tensor, "units 3"]:
    """above, below, tokens of some units."""
    ones = (1.0,) * len(units.above)
    table = torch.tensor(
        [units.above, units.below or ones, units.tokens or ones], dtype=torch.float64
    )
    return table[:, list(places)].T


def _value(units: Units, rows: Float[Tensor, "units 3"]) -> Value:
    if units.below:
        return ratio(rows[:, 0], rows[:, 1], rows[:, 2])
    return float(rows[:, 0].mean()), normal_interval(rows[:, 0])


def _gap(sums: Float[Tensor, "repeats 4"]) -> Float[Tensor, " repeats"]:
    return sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
