"""One number a condition: a group of adapters at a site, over all its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lorascope.report.result import Results
from lorascope.results import Estimate, Key
from lorascope.results.labels import Of
from lorascope.results.seeds import by_condition, over_seeds


def conditions(results: Results, measure: str, of: Of | None = None) -> list[Estimate]:
    """The estimates of a measure, one a group and site: means over seeds, chance levels too.

    Intervals are over documents and seeds (`results.seeds`). `key.adapter` is the group.
    """
    if (measure, of) not in results.pooled:
        found = over_seeds(_chosen(results, measure, of), results.groups)
        results.pooled[measure, of] = tuple(found)
    return list(results.pooled[measure, of])


def at_first_setting(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Of a number taken at several settings (k, sparsity, …), the first at each place."""
    chosen: dict[tuple[str, str, Of], Estimate] = {}
    for estimate in estimates:
        key = estimate.key
        chosen.setdefault((key.adapter, key.site, Of.key(key)), estimate)
    return list(chosen.values())


def replicates(results: Results, one: Estimate) -> int:
    """How many numbers of the results went into one of `conditions`."""
    every = by_condition(_chosen(results, one.measure, None), results.groups)
    return next((len(several) for key, several in every if key == one.key), 1)


_NOWHERE: Final = Key()


def setting_of(key: Key) -> Key:
    """What a number was taken at (k, sparsity, …): its key without adapter, site and seed."""
    return replace(
        key,
        adapter=_NOWHERE.adapter,
        rank=_NOWHERE.rank,
        site=_NOWHERE.site,
        seed=_NOWHERE.seed,
    )


def at_setting(estimates: Sequence[Estimate], setting: Key) -> list[Estimate]:
    """Those at one setting."""
    return [estimate for estimate in estimates if setting_of(estimate.key) == setting]


def settings(estimates: Sequence[Estimate]) -> list[Key]:
    """Settings that occur, in order."""
    return list(dict.fromkeys(setting_of(estimate.key) for estimate in estimates))


def group_labels(found: Sequence[Estimate], results: Results) -> dict[str, str]:
    """{group: what tables call it}: its rank where every rank is known and they differ."""
    present = {e.key.adapter for e in found}
    groups = dict.fromkeys(results.groups.get(name, name) for name in results.adapters)
    ranks = {e.key.adapter: e.key.rank for e in found if e.key.rank is not None}
    kept = [group for group in groups if group in present]
    if kept and all(group in ranks for group in kept) and len(set(ranks.values())) == len(kept):
        return {group: str(ranks[group]) for group in sorted(kept, key=lambda g: ranks[g] or 0)}
    return {group: group for group in kept}


def _chosen(results: Results, measure: str, of: Of | None) -> list[Estimate]:
    found = results.numbers.taken(measure)
    return [estimate for estimate in found if of in (None, Of.key(estimate.key))]
