"""A table as a paper prints it: each number with its interval and chance level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from lorascope.report.formatting import interval, number, sign
from lorascope.report.latex import tabular
from lorascope.results import Estimate


@dataclass(frozen=True)
class PrintedCell:
    """One printed number, or plain text.

    Attributes:
        text: the value with its verdict's sign.
        under: interval and chance level, in small print.
        value: the number itself; nan for text.
    """

    text: str
    under: str = ""
    value: float = math.nan

    @classmethod
    def of(cls, estimate: Estimate | None) -> PrintedCell:
        """An estimate's cell; an empty one where nothing was measured."""
        if estimate is None:
            return cls("–")
        around = interval(*estimate.interval)
        chance = f"chance {number(estimate.chance)}" if estimate.nulls else ""
        verdict = sign(estimate) if estimate.nulls else ""
        text = f"{number(estimate.value)} {verdict}".strip()
        return cls(text, " · ".join(part for part in (around, chance) if part), estimate.value)

    @classmethod
    def plain(cls, value: object) -> PrintedCell:
        """A cell that is no estimate."""
        if isinstance(value, float):
            return cls(number(value), value=value)
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(f"{value:,}", value=float(value))
        return cls(str(value))


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        number: the paper's.
        key: file name.
        title: what it shows, with the unit.
        heading: of the first column.
        columns: headings of the others.
        rows: label and cells.
        estimates: every number in it, for the long table.
    """

    number: int
    key: str
    title: str
    heading: str
    columns: list[str]
    rows: list[tuple[str, list[PrintedCell]]]
    estimates: list[Estimate]


def frame(table: PaperTable) -> pd.DataFrame:
    """The table with numbers as numbers; interval and chance level in a column beside each."""
    records = []
    for label, cells in table.rows:
        record: dict[str, object] = {table.heading: label}
        for column, cell in zip(table.columns, cells, strict=True):
            record[column] = cell.text if math.isnan(cell.value) else cell.value
            if any(c[table.columns.index(column)].under for _, c in table.rows):
                record[f"{column}: interval and chance"] = cell.under
        records.append(record)
    return pd.DataFrame(records)


def latex(table: PaperTable) -> str:
    """The table as a LaTeX tabular (booktabs), interval and chance level under each number."""
    rows = [(label, [(cell.text, cell.under) for cell in cells]) for label, cells in table.rows]
    return tabular(table.title, [table.heading, *table.columns], rows)
