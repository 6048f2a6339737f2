"""What a terminal says when an audit has ended: the verdicts in one table, or all of it as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lorascope.report.formatting import visible
from lorascope.report.latents import read_latents
from lorascope.report.result import Results, read_results
from lorascope.report.tables import MatrixRow, verdict_matrix
from lorascope.report.words import words

# Adapters that have a column of their own.
_COLUMNS = 8


def summary(run: Path) -> RenderableType:
    """The verdicts of a finished run: a row a number, a column an adapter, and the cautions."""
    results = read_results(run)
    said = words(results, read_latents(run))
    shown = results.adapters[:_COLUMNS]
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("number")
    for name in shown:
        table.add_column(Text(visible(name)), no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("chance", justify="right")
    for row in verdict_matrix(results):
        table.add_row(*_cells(row, len(shown)))
    return Group(*_lines(said.scope, said.overall), table, *_lines(*_cautions(said.cautions)))


def summary_data(run: Path, report: Path) -> dict[str, Any]:
    """The same and every headline number's range as plain data."""
    results = read_results(run)
    said = words(results, read_latents(run))
    return {
        "run": str(run),
        "report": str(report),
        "scope": said.scope,
        "overall": said.overall,
        "found": [{"topic": title, "words": sentence} for title, sentence in said.leads],
        "cautions": said.cautions,
        "verdicts": [_record(row, results) for row in verdict_matrix(results)],
    }


def _cells(row: MatrixRow, adapters: int) -> Iterator[Text]:
    of = ", ".join(part for part in (row.dictionary, row.unit) if part)
    yield Text.assemble(row.title, (f" {of}", "dim"))
    for cell in row.cells[:adapters]:
        style = "green" if cell.total and cell.found == cell.total else ""
        yield Text(cell.text or "–", style=style)
    yield Text(row.value)
    yield Text(row.chance)


def _record(row: MatrixRow, results: Results) -> dict[str, Any]:
    cells = zip(results.adapters, row.cells, strict=True)
    return {
        "measure": row.measure,
        "title": row.title,
        "dictionary": row.dictionary,
        "unit": row.unit,
        "value": row.value,
        "chance": row.chance,
        "null": row.null,
        "found_means": row.apart,
        "adapters": {
            name: {"found": c.found, "not_apart": c.at, "opposite": c.opposite, "of": c.total}
            for name, c in cells
        },
    }


def _lines(*lines: str) -> Iterator[Text]:
    return (Text(visible(line)) for line in lines if line)


def _cautions(found: list[str]) -> Iterator[str]:
    return (f"! {line}" for line in found)
