"""How much of a number's variance lies between conditions rather than between seeds.

With values v_cs of condition c and replicate s, as `results.seeds` has them:

    v_cs = mean + condition_c + seed_cs      share = var(condition) / (var(condition) + var(seed))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from scipy import stats

from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NO_DIFFERENCE
from lorascope.results.seeds import pooled

SHARE = "variance.condition_share"
_TOTAL = 1e-12


def condition_shares(estimates: Iterable[Estimate], groups: Mapping[str, str]) -> list[Estimate]:
    """Share of a measure's variance that lies between conditions, not between seeds.

    One number for each measure and what it is of (dictionary, k, …) with two conditions of equally
    many replicates, two or more. Interval and chance level (no difference between conditions) from
    the F distribution (Searle 1971). `key.about` names the measure.

    Args:
        groups: {adapter: name it shares with those that differ from it in their seed alone};
            numbers of others are left out.
    """
    tables: dict[Key, list[tuple[float, ...]]] = {}
    for one in pooled((e for e in estimates if e.key.adapter in groups), groups):
        number = one.estimate
        what = replace(number.key, adapter="", rank=None, site="", about=number.measure)
        tables.setdefault(what, []).append(one.values)
    shares = []
    for what, table in tables.items():
        if len(table) < 2 or len({len(values) for values in table}) > 1:
            continue
        values = np.array(table)
        if np.isfinite(values).all() and np.ptp(values) > _TOTAL * np.abs(values).max():
            shares.append(_share(values, what))
    return sorted(shares, key=lambda share: str(share.key))


def _share(values: np.ndarray, place: Key) -> Estimate:
    """Intraclass correlation of a table [conditions, replicates]."""
    conditions, replicates = values.shape
    between = replicates * values.mean(1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    ratio = between / within if within > 0 else np.inf
    free = (conditions - 1, conditions * (replicates - 1))
    low, high = stats.f.ppf([0.025, 0.975], *free)

    def share(f: float) -> float:
        return 1.0 if np.isinf(f) else float((f - 1) / (f + replicates - 1))

    chance = Null(NO_DIFFERENCE, 0.0, share(low), share(high))
    interval = (share(ratio / high), share(ratio / low))
    return Estimate(SHARE, share(ratio), interval, values.size, "share", (chance,), place)
