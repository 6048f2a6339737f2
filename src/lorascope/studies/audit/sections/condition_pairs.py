"""Two conditions side by side: the headline numbers of any two, as data for the page.

A condition is an adapter at a site. Numbers of an adapter as a whole stand with each of its sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorascope.measures.definitions import definition_of
from lorascope.report.conditions import bounds
from lorascope.report.formatting import interval, number, sign
from lorascope.report.pooled import at_first_setting, conditions
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.labels import Of
from lorascope.studies.audit.sections.topics import HEADLINE_MEASURES, dictionary_order


@dataclass(frozen=True)
class ConditionPairs:
    """What the page compares.

    Attributes:
        conditions: adapter (the name of its seeds' group), the adapters of the group, and site.
        rows: number, dictionary, unit, and a cell a condition; None where it was not taken.
    """

    conditions: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"conditions": self.conditions, "rows": self.rows}


def condition_pairs(results: Results) -> ConditionPairs | None:
    """Headline numbers of every condition, over seeds; None with fewer than two conditions."""
    taken = {m: at_first_setting(conditions(results, m)) for m in HEADLINE_MEASURES}
    places = {(e.key.adapter, e.key.site) for found in taken.values() for e in found}
    groups = dict.fromkeys(results.groups.get(name, name) for name in results.adapters)
    known = [(g, s) for s in results.sites for g in groups if (g, s) in places]
    if len(known) < 2:
        return None
    rows = []
    for measure, found in taken.items():
        for of in dictionary_order(found):
            if not of.seeds_alone:
                chosen = [e for e in found if Of.key(e.key) == of]
                rows.append(_row(measure, of, chosen, known))
    return ConditionPairs([_condition(results, *place) for place in known], rows)


def _condition(results: Results, group: str, site: str) -> dict[str, Any]:
    members = [name for name, own in results.groups.items() if own == group]
    return {"adapter": group, "site": site, "adapters": members}


def _row(
    measure: str, of: Of, chosen: list[Estimate], known: list[tuple[str, str]]
) -> dict[str, Any]:
    by_place = {(e.key.adapter, e.key.site): e for e in chosen}
    definition = definition_of(measure)
    cells = [_cell(by_place.get(place) or by_place.get((place[0], ""))) for place in known]
    return {
        "title": definition.title,
        "dictionary": str(of),
        "unit": chosen[0].unit,
        "cells": cells,
    }


def _cell(estimate: Estimate | None) -> dict[str, Any] | None:
    """A printed number, and its interval's bounds to say whether two intervals touch."""
    if estimate is None:
        return None
    low, high = bounds(estimate)
    chance = number(estimate.chance) if estimate.nulls else ""
    return {
        "value": f"{number(estimate.value)} {sign(estimate)}",
        "interval": interval(*estimate.interval),
        "chance": chance,
        "low": _plain(low),
        "high": _plain(high),
    }


def _plain(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
