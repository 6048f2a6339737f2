"""One number a condition: a group of adapters at a site, over all its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lorascope.measures.seeds import over_seeds
from lorascope.report.result import Results
from lorascope.results import Estimate, Null


def conditions(
    results: Results, measure: str, dictionary: str | None = None, setting: str | None = None
) -> list[Estimate]:
    """The estimates of a measure, one a group and site: means over seeds, chance levels too.

    Intervals are over documents and seeds (`measures.seeds`). `place.adapter` is the group.
    """
    chosen: dict[tuple[str, ...], list[Estimate]] = {}
    for estimate in results.numbers:
        place = estimate.key
        if (
            estimate.measure == measure
            and dictionary in (None, place.dictionary)
            and setting in (None, place.setting)
        ):
            group = results.groups.get(place.adapter, place.adapter)
            key = (group, place.site, place.dictionary, place.setting)
            chosen.setdefault(key, []).append(estimate)
    return [_one(several, results) for several in chosen.values()]


def at_first_setting(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Of a number taken at several settings, the first at each place."""
    chosen: dict[tuple[str, ...], Estimate] = {}
    for estimate in estimates:
        place = estimate.key
        chosen.setdefault((place.adapter, place.site, place.dictionary), estimate)
    return list(chosen.values())


def replicates(results: Results, one: Estimate) -> int:
    """How many numbers of the results went into one of `conditions`."""
    place, groups = one.key, results.groups
    return sum(
        e.measure == one.measure
        and groups.get(e.key.adapter, e.key.adapter) == place.adapter
        and (e.key.site, e.key.dictionary, e.key.setting)
        == (place.site, place.dictionary, place.setting)
        for e in results.numbers
    )


def of_setting(estimates: Sequence[Estimate], setting: str) -> list[Estimate]:
    """Those at one setting."""
    return [estimate for estimate in estimates if estimate.key.setting == setting]


def settings(estimates: Sequence[Estimate]) -> list[str]:
    """Settings that occur, in order."""
    return list(dict.fromkeys(estimate.key.setting for estimate in estimates))


def group_labels(found: Sequence[Estimate], results: Results) -> dict[str, str]:
    """{group: what tables call it}: its rank where every rank is known and they differ."""
    present = {e.key.adapter for e in found}
    groups = dict.fromkeys(results.groups.get(name, name) for name in results.adapters)
    ranks = {e.key.adapter: e.key.rank for e in found if e.key.rank is not None}
    kept = [group for group in groups if group in present]
    if kept and all(group in ranks for group in kept) and len(set(ranks.values())) == len(kept):
        return {group: str(ranks[group]) for group in sorted(kept, key=lambda g: ranks[g] or 0)}
    return {group: group for group in kept}


def _one(several: list[Estimate], results: Results) -> Estimate:
    first = several[0]
    group = results.groups.get(first.key.adapter, first.key.adapter)
    if len(several) == 1:
        return replace(first, key=replace(first.key, adapter=group, seed=None))
    names = {e.key.adapter: results.groups.get(e.key.adapter, e.key.adapter) for e in several}
    (pooled,) = over_seeds(several, names)
    return Estimate(
        first.measure,
        pooled.mean,
        pooled.interval,
        first.n,
        first.unit,
        tuple(_around(chance, several) for chance in pooled.nulls),
        pooled.key,
    )


def _around(chance: Null, several: Sequence[Estimate]) -> Null:
    """The chance level over the seeds, its interval wide enough for every one of them."""
    same = [c for e in several for c in e.nulls if c.name == chance.name]
    return Null(chance.name, chance.level, min(c.low for c in same), max(c.high for c in same))
