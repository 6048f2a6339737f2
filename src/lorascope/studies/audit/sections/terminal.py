"""What a terminal says when an audit has ended: the verdicts in one table, or all of it as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from lorascope.report.formatting import visible
from lorascope.report.latents import read_latents
from lorascope.report.result import Results, read_results
from lorascope.studies.audit.sections.opening import IN_WORDS
from lorascope.studies.audit.sections.tables import MatrixRow, verdict_matrix
from lorascope.studies.audit.sections.words import words

# Least width of the column that says which number it is.
_NAMED = 30
_GAP = 2


class _Verdicts:
    """A row a number; a column an adapter where the terminal has room for them all."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [visible(name) for name in self._results.adapters]
        rows = verdict_matrix(self._results)
        if len(names) > 1 and _width(names, rows) > options.max_width:
            names = [f"all {len(names)} adapters"]
            rows = verdict_matrix(self._results, pooled=True)
        table = Table(box=None, padding=(0, 1), header_style="bold")
        table.add_column("number", min_width=_NAMED if len(names) > 1 else None)
        for name in names:
            table.add_column(Text(name), no_wrap=True)
        table.add_column("value", justify="right")
        table.add_column("chance", justify="right")
        for row in rows:
            table.add_row(*_cells(row))
        yield table


def _width(names: list[str], rows: list[MatrixRow]) -> int:
    """Columns of a terminal that the table of these needs."""
    columns = [[name, *texts] for name, *texts in zip(names, *map(_texts, rows), strict=True)]
    columns += [["value", *(row.value for row in rows)], ["chance", *(row.chance for row in rows)]]
    return _NAMED + _GAP + sum(max(map(cell_len, column)) + _GAP for column in columns)


def _texts(row: MatrixRow) -> list[str]:
    return [cell.text for cell in row.cells]


def summary(run: Path) -> RenderableType:
    """The verdicts of a finished run, and the cautions."""
    results = read_results(run)
    said = words(results, read_latents(run))
    words_of = [sentence for title, sentence in said.leads if title == IN_WORDS]
    before = _lines(said.scope, *words_of, said.overall)
    after = _lines(*_cautions(said.cautions))
    return Group(*before, _Verdicts(results), *after)


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


def _cells(row: MatrixRow) -> Iterator[Text]:
    of = ", ".join(part for part in (row.dictionary, row.unit) if part)
    yield Text.assemble(row.title, (f" {of}", "dim"))
    for cell in row.cells:
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
