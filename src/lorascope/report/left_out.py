"""How many records, documents and tokens a run used, of how many, and why the others were not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lorascope.report.formatting import number

_MUCH: Final = 0.1


def left_out(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The facts' records: what, used, of, reason; none where a run has none."""
    found = facts.get("left_out", [])
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def left_out_lines(facts: Mapping[str, Any]) -> list[str]:
    """A caution for each kind of which more than a tenth was not used."""
    lines = []
    for one in left_out(facts):
        used, of = float(one.get("used", 0)), float(one.get("of", 0))
        if of > 0 and 1 - used / of > _MUCH:
            lines.append(
                f"Left out: {number(100 * (1 - used / of))} % of the {one.get('what', '')} "
                f"({used:,.0f} of {of:,.0f} used; {one.get('reason', '')})."
            )
    return lines


def left_out_rows(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of a table of facts, one a kind."""
    return [
        {
            "what": one.get("what", ""),
            "used": one.get("used"),
            "of": one.get("of"),
            "left out": one.get("reason") or "nothing",
        }
        for one in left_out(facts)
    ]


def of_how_many(facts: Mapping[str, Any], what: str) -> str:
    """` of 30 (6 longer than the context)` behind the number used; empty where all were."""
    for one in left_out(facts):
        if one.get("what") == what and one.get("of") != one.get("used"):
            return f" of {one['of']:,} ({one.get('reason', '')} left out)"
    return ""
