"""Numbers of one condition over its seeds: their mean, its interval, how far the seeds differ.

A condition is a group of adapters (a rank, say) at a site. Its replicates are the adapters' seeds,
each the mean over its dictionaries' seeds, which share that adapter; with a single adapter they
are the dictionaries' seeds.

All are measured on the same documents, whose error the mean of any number of seeds keeps: intervals
are those of `stats.hierarchical`, from the seeds' spread and from the single numbers' own intervals
over documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lorascope.results.estimate import Estimate, Null
from lorascope.results.key import Key
from lorascope.stats.hierarchical import mean_reach, pooled_interval
from lorascope.stats.intervals import Interval

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
    """One measure of one condition over its replicates, two or more.

    Attributes:
        estimate: their mean; `key.adapter` is the group's name, and there is no seed.
        values: one a replicate.
        n: how many numbers they were made from.
        spread: standard deviations between replicates: of adapters' seeds and of dictionaries'
            seeds, nan where there is only one.
    """

    estimate: Estimate
    values: tuple[float, ...]
    n: int
    spread: tuple[float, float]


def pooled(estimates: Iterable[Estimate], groups: Mapping[str, str]) -> list[Pooled]:
    """Every measure and condition that has two replicates or more.

    Args:
        groups: {adapter: name it shares with those that differ from it in their seed alone};
            adapters that it does not name stand for themselves.
    """
    found = by_condition(estimates, groups)
    return [_pooled(key, several) for key, several in found if len(several) > 1]


def over_seeds(estimates: Iterable[Estimate], groups: Mapping[str, str]) -> list[Estimate]:
    """One number a measure and condition; those with a single replicate are taken as they are."""
    return [
        _pooled(key, several).estimate if len(several) > 1 else several[0].at(key)
        for key, several in by_condition(estimates, groups)
    ]


def by_condition(
    estimates: Iterable[Estimate], groups: Mapping[str, str]
) -> list[tuple[Key, list[Estimate]]]:
    """The numbers of each measure and condition, with the condition's key."""
    found: dict[tuple[str, Key], list[Estimate]] = {}
    for estimate in estimates:
        own = estimate.key
        shared = replace(own, adapter=groups.get(own.adapter, own.adapter), seed=None)
        found.setdefault((estimate.measure, shared), []).append(estimate)
    return [(key, several) for (_, key), several in found.items()]


def _pooled(key: Key, several: Sequence[Estimate]) -> Pooled:
    first = several[0]
    values = _replicates(several, [e.value for e in several])
    mean = replace(
        first,
        value=float(np.mean(values)),
        interval=seeds_interval(first.measure, values, several),
        nulls=tuple(_null(null, several) for null in first.nulls),
        key=key,
        judged=all(e.judged for e in several),
    )
    return Pooled(mean, tuple(values), len(several), _spread(several))


def seeds_interval(measure: str, values: Sequence[float], several: Sequence[Estimate]) -> Interval:
    """Of the mean of `values`, one a replicate, of which `several` are the single numbers."""
    if measure.startswith(OWN_UNITS):
        return pooled_interval(values)
    return pooled_interval(values, mean_reach([(e.value, e.interval) for e in several]))


def _null(null: Null, several: Sequence[Estimate]) -> Null:
    """The chance level over the seeds: it spans every one of theirs.

    Draws of a null vary by all that a single number does, seeds among it: beside these the mean
    over seeds needs no further interval.
    """
    pairs = [(e, c) for e in several for c in e.nulls if c.name == null.name]
    chances = [c for _, c in pairs]
    gaps = [e.value - c.level for e, c in pairs]
    reach = mean_reach([(gap, e.difference(c)) for gap, (e, c) in zip(gaps, pairs, strict=True)])
    replicates = _replicates([e for e, _ in pairs], gaps)
    if null.draws:
        replicates = [float(np.mean(replicates))]
    return replace(
        null,
        level=float(np.mean([c.level for c in chances])),
        low=min(c.low for c in chances),
        high=max(c.high for c in chances),
        difference=pooled_interval(replicates, reach),
        p=None,
    )


def _replicates(several: Sequence[Estimate], values: Sequence[float]) -> list[float]:
    """One value a replicate: an adapter's mean, or each of a single adapter's."""
    rows: dict[str, list[float]] = {}
    for estimate, value in zip(several, values, strict=True):
        rows.setdefault(estimate.key.adapter, []).append(value)
    if len(rows) == 1:
        return next(iter(rows.values()))
    return [float(np.mean(row)) for row in rows.values()]


def _spread(several: Sequence[Estimate]) -> tuple[float, float]:
    by_adapter: dict[str, list[float]] = {}
    for estimate in several:
        by_adapter.setdefault(estimate.key.adapter, []).append(estimate.value)
    rows = list(by_adapter.values())
    within = [np.var(row, ddof=1) for row in rows if len(row) > 1]
    of_dictionaries = float(np.sqrt(np.mean(within))) if within else math.nan
    if len(rows) < 2:
        return math.nan, of_dictionaries
    # The means of adapters differ by their dictionaries' seeds too.
    noise = np.mean(within) / np.mean([len(row) for row in rows]) if within else 0.0
    between = np.var([np.mean(row) for row in rows], ddof=1)
    return float(np.sqrt(max(0.0, between - noise))), of_dictionaries
