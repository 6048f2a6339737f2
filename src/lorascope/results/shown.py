"""Numbers as a prompt and a notebook show them: one line each, tables with every text escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Final

from lorascope.printing import visible
from lorascope.results.key import KEY_FIELDS

if TYPE_CHECKING:
    from lorascope.results.estimate import Estimate, Null

# Rows of a notebook's table.
_MOST: Final = 60
_STYLE: Final = "text-align:left;white-space:nowrap"


def around(low: float, high: float) -> str:
    """'[low, high]' to four digits; empty without an interval."""
    return "" if math.isnan(low) or math.isnan(high) else f"[{low:.4g}, {high:.4g}]"


def verdict_text(estimate: Estimate) -> str:
    """The verdict, and whether it is beside a reference alone, by which nothing is claimed."""
    return estimate.verdict + (" its reference" if estimate.apart_from_reference else "")


def chance_text(estimate: Estimate) -> str:
    """'chance 0.2 (null adapters): above'; empty without a chance level."""
    null = estimate.headline
    if null is None:
        return ""
    return f"chance {null.level:.4g} ({null.name}): {verdict_text(estimate)}"


def estimate_line(estimate: Estimate) -> str:
    """Measure, value, interval, chance, verdict and what it belongs to, in one line."""
    value = (f"{estimate.value:.4g}", around(*estimate.interval), estimate.unit)
    number = " ".join(part for part in (estimate.measure, *value) if part)
    parts = [f"{number}, n {estimate.n:,}", chance_text(estimate), str(estimate.key)]
    return visible(f"Estimate({'; '.join(part for part in parts if part)})")


def null_line(null: Null) -> str:
    """Name, level, spread, and whether it is a rival, in one line."""
    level = f"{null.name} {null.level:.4g} {around(null.low, null.high)}".rstrip()
    drawn = f", {null.draws} draws" if null.draws else ""
    return visible(f"Null({level}, {'rival' if null.rival else 'reference'}{drawn})")


def estimates_html(estimates: Sequence[Estimate]) -> str:
    """A table with a row an estimate; columns of the key that say nothing are left out."""
    shown = list(islice(estimates, _MOST))
    fields = [
        name
        for name in KEY_FIELDS
        if any(getattr(each.key, name) not in ("", None) for each in shown)
    ]
    heads = ("measure", *fields, "value", "95 % interval", "chance", "null", "verdict", "n", "unit")
    rows = [_cells(each, fields) for each in shown]
    more = len(estimates) - len(shown)
    return table_html(heads, rows, f"{more:,} more rows: to_frame() has them all" if more else "")


def table_html(heads: Iterable[str], rows: Iterable[Iterable[str]], below: str = "") -> str:
    """Texts as an HTML table; nothing in them becomes markup."""

    def line(tag: str, cells: Iterable[str]) -> str:
        inner = "".join(f'<{tag} style="{_STYLE}">{_text(cell)}</{tag}>' for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "".join(line("td", row) for row in rows)
    note = f"<p>{_text(below)}</p>" if below else ""
    return f"<table><thead>{line('th', heads)}</thead><tbody>{body}</tbody></table>{note}"


def _cells(estimate: Estimate, fields: Sequence[str]) -> list[str]:
    null = estimate.headline
    values = (getattr(estimate.key, name) for name in fields)
    return [
        estimate.measure,
        *("" if value is None else str(value) for value in values),
        f"{estimate.value:.4g}",
        around(*estimate.interval),
        "" if null is None else f"{null.level:.4g}",
        "" if null is None else null.name,
        verdict_text(estimate),
        f"{estimate.n:,}",
        estimate.unit,
    ]


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
