"""Facts as printed tables."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lorascope.report.formatting import number
from lorascope.report.left_out import left_out_rows
from lorascope.spreadsheets import csv_text


@dataclass(frozen=True)
class FactTable:
    """Facts of one kind: heading, columns and printed cells."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def fact_table(title: str, records: list[Mapping[str, Any]]) -> FactTable:
    """Records as a printed table: a column for every key."""
    columns = list(dict.fromkeys(column for record in records for column in record))
    rows = [[_printed(record.get(column)) for column in columns] for record in records]
    return FactTable(title, [column.replace("_", " ") for column in columns], rows)


def _printed(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else str(value)


def csv_uri(table: pd.DataFrame) -> str:
    """A table as a data URI of CSV."""
    text = csv_text(table)
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


def fact_tables(facts: Mapping[str, Any]) -> list[FactTable]:
    """The run's facts as tables; facts that are absent or empty have none."""
    records: dict[str, Iterable[Mapping[str, Any]]] = {
        "Model": [facts["model"]] if facts.get("model") else [],
        "Adapters": facts.get("adapters", []),
        "Adapter training": facts.get("adapter_training", []),
        "Tokens": [
            {"rows": rows, **counts} for rows, counts in facts.get("tokens", {}).items() if counts
        ],
        "What was used": left_out_rows(facts),
        "Dictionaries": [
            {key: value for key, value in record.items() if not isinstance(value, list)}
            for record in facts.get("dictionaries", [])
        ],
        "Versions": [facts["versions"]] if facts.get("versions") else [],
    }
    tables = (fact_table(title, list(rows)) for title, rows in records.items())
    return [table for table in tables if table.rows]
