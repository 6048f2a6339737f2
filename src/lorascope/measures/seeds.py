"""What several seeds of one condition say together, and how far seeds and conditions differ.

A condition is a group of adapters (a rank, say) at a site. Its replicates are the adapters' seeds,
each the mean over its dictionaries' seeds, which share that adapter; with a single adapter they
are the dictionaries' seeds. All are measured on the same documents, whose error the mean of any
number of seeds keeps: intervals are those of `stats.hierarchical`, from the seeds' spread and
from the single numbers' own intervals over documents. With values v_cs of condition c and
replicate s:

    v_cs = mean + condition_c + seed_cs      share = var(condition) / (var(condition) + var(seed))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from scipy import stats

from lorascope.results import Estimate, Key, Null
from lorascope.stats.hierarchical import mean_reach, pooled_interval
from lorascope.stats.intervals import Interval

SHARE = "variance.condition_share"
_TOTAL = 1e-12
# Measures whose intervals are over units of which every seed has its own (a dictionary's latents, a
# module's directions, the seed itself): the spread between seeds holds their error too.
OWN_UNITS = (
    *("max_cosine.", "angle.", "dead_share", "ablation.dead_share", "latent_ablation."),
    *("latent_addition.", "latent.ablation", "latent.mattering", "latent.used"),
    *("latent.effective", "latent.largest", "latent.overlap", "compare.only_here", "weights."),
    "variance.",
)


@dataclass(frozen=True)
class Pooled:
    """One measure of one condition over its replicates.

    Attributes:
        key: `adapter` is the group's name; no seed.
        values: one a replicate.
        n: how many numbers they were made from.
        interval: 95 % interval of their mean, over documents and replicates.
        spread: standard deviations between replicates: of adapters' seeds and of dictionaries'
            seeds, nan where there is only one.
        nulls: means over the replicates of what stands under the same null.
    """

    measure: str
    key: Key
    values: tuple[float, ...]
    n: int
    unit: str
    interval: Interval
    spread: tuple[float, float]
    nulls: tuple[Null, ...]

    @property
    def mean(self) -> float:
        """Over the replicates."""
        return float(np.mean(self.values))


def over_seeds(estimates: Iterable[Estimate], groups: Mapping[str, str]) -> list[Pooled]:
    """Every measure and condition that has two replicates or more.

    Args:
        groups: {adapter: name it shares with those that differ from it in their seed alone}.
    """
    found = []
    for place, several in _by_condition(estimates, groups):
        if len(several) > 1:
            found.append(_pooled(place, several))
    return found


def condition_shares(estimates: Iterable[Estimate], groups: Mapping[str, str]) -> list[Estimate]:
    """Share of a measure's variance that lies between conditions, not between seeds.

    One number for each measure, dictionary and setting with two conditions of equally many
    replicates, two or more. Interval and chance level (no difference between conditions) from the
    F distribution (Searle 1971). `place.setting` names the measure.
    """
    shares = []
    key = _what
    pooled = sorted(over_seeds(estimates, groups), key=key)
    for (measure, dictionary, setting), several in groupby(pooled, key=key):
        table = [one.values for one in several]
        sizes = {len(values) for values in table}
        if len(table) < 2 or len(sizes) > 1:
            continue
        values = np.array(table)
        if not np.isfinite(values).all() or np.ptp(values) <= _TOTAL * np.abs(values).max():
            continue
        named = f"{measure}, {setting}" if setting else measure
        shares.append(_share(values, Key(dictionary=dictionary, setting=named)))
    return shares


def _what(one: Pooled) -> tuple[str, str, str]:
    return one.measure, one.key.dictionary, one.key.setting


def _by_condition(
    estimates: Iterable[Estimate], groups: Mapping[str, str]
) -> list[tuple[Key, list[Estimate]]]:
    found: dict[tuple[str, Key], list[Estimate]] = {}
    for estimate in estimates:
        place = estimate.key
        if place.adapter in groups:
            shared = replace(place, adapter=groups[place.adapter], seed=None)
            found.setdefault((estimate.measure, shared), []).append(estimate)
    return [(place, several) for (_, place), several in found.items()]


def _pooled(place: Key, several: Sequence[Estimate]) -> Pooled:
    by_adapter: dict[str, list[float]] = {}
    for estimate in several:
        by_adapter.setdefault(estimate.key.adapter, []).append(estimate.value)
    rows = list(by_adapter.values())
    within = [np.var(row, ddof=1) for row in rows if len(row) > 1]
    of_dictionaries = float(np.sqrt(np.mean(within))) if within else float("nan")
    of_adapters = float("nan")
    if len(rows) > 1:
        # The means of adapters differ by their dictionaries' seeds too.
        noise = np.mean(within) / np.mean([len(row) for row in rows]) if within else 0.0
        between = np.var([np.mean(row) for row in rows], ddof=1)
        of_adapters = float(np.sqrt(max(0.0, between - noise)))
    first = several[0]
    chances = []
    for chance in first.nulls:
        same = [c for e in several for c in e.nulls if c.name == chance.name]
        low, level, high = (
            float(np.mean([getattr(c, part) for c in same])) for part in ("low", "level", "high")
        )
        chances.append(Null(chance.name, level, low, high))
    values = [float(np.mean(row)) for row in rows] if len(rows) > 1 else rows[0]
    interval = seeds_interval(first.measure, values, several)
    return Pooled(
        first.measure,
        place,
        tuple(values),
        len(several),
        first.unit,
        interval,
        (of_adapters, of_dictionaries),
        tuple(chances),
    )


def seeds_interval(measure: str, values: Sequence[float], several: Sequence[Estimate]) -> Interval:
    """Of the mean of `values`, one a replicate, of which `several` are the single numbers."""
    if measure.startswith(OWN_UNITS):
        return pooled_interval(values)
    return pooled_interval(values, mean_reach([(e.value, e.interval) for e in several]))


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

    chance = Null("no difference between conditions", 0.0, share(low), share(high))
    interval = (share(ratio / high), share(ratio / low))
    return Estimate(SHARE, share(ratio), interval, values.size, "share", (chance,), place)
