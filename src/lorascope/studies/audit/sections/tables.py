"""The audit's tables: the verdict matrix of the first screen, and every number by topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.measures.definitions import Definition, definition_of
from lorascope.report.conditions import VerdictTally, measured
from lorascope.report.formatting import (
    SYMBOLS,
    span,
)
from lorascope.report.latex import long_table
from lorascope.report.result import Results
from lorascope.report.tables import TableRow, measure_order, table_row
from lorascope.results import Estimate, Estimates, Verdict
from lorascope.results.labels import Of
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text
from lorascope.studies.audit.sections.topics import (
    HEADLINE_MEASURES,
    OTHER,
    TOPICS,
    ReportTopic,
    dictionary_order,
    topic_of,
)


@dataclass(frozen=True)
class VerdictCell:
    """Verdicts of one measure for one adapter.

    Attributes:
        text: '▲ 3 = 1', empty where nothing was measured.
        words: the same without symbols.
        found, at, opposite: counts on the side that means something, not apart, on the other side.
        total: conditions counted.
    """

    text: str
    words: str
    found: int
    at: int
    opposite: int
    total: int


@dataclass(frozen=True)
class MatrixRow:
    """One measure of the verdict matrix: ranges over all conditions and a cell per adapter."""

    measure: str
    title: str
    dictionary: str
    unit: str
    apart: str
    value: str
    chance: str
    null: str
    cells: list[VerdictCell]


@dataclass(frozen=True)
class TopicTable:
    """Every estimate of a topic.

    Attributes:
        topic: the section.
        estimates: the numbers themselves.
        summary: one row per measure and dictionary, cells counted over all adapters.
        rows: one row per estimate.
        definitions: title and definition of each measure, in order.
        columns: which optional columns have content: rank, seed, dictionary, setting, nulls.
    """

    topic: ReportTopic
    estimates: list[Estimate]
    summary: list[MatrixRow]
    rows: list[TableRow]
    definitions: list[tuple[str, Definition]]
    columns: set[str]


def verdict_matrix(results: Results, *, pooled: bool = False) -> list[MatrixRow]:
    """Headline measures × adapters; measures that were not taken have no row.

    Args:
        pooled: count over all adapters, in one cell a row.
    """
    rows = []
    for measure in HEADLINE_MEASURES:
        estimates = measured(results, measure)
        for of in (of for of in dictionary_order(estimates) if not of.seeds_alone):
            chosen = [e for e in estimates if Of.key(e.key) == of]
            by_adapter = [
                [e for e in chosen if e.key.adapter == adapter] for adapter in results.adapters
            ]
            groups = [chosen] if pooled else by_adapter
            rows.append(_matrix_row(measure, of, chosen, groups))
    return rows


def topic_tables(results: Results) -> list[TopicTable]:
    """One table for each topic that has numbers, in the report's order."""
    tables = []
    for topic in (*TOPICS, OTHER):
        estimates = [e for e in results.numbers if topic_of(e.measure) == topic]
        if estimates:
            tables.append(_topic_table(topic, estimates, results))
    return tables


def write_tables(tables: Sequence[TopicTable], folder: Path) -> None:
    """Write `<topic>.csv`, `<topic>.tex` and `<topic>_chance_levels.csv`.

    Columns of the CSV files are those of the results folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        stem = folder / table.topic.key
        write_atomically(stem.with_suffix(".csv"), csv_text(Estimates(table.estimates).to_frame()))
        write_atomically(
            stem.with_name(f"{stem.name}_chance_levels.csv"),
            csv_text(Estimates(table.estimates).nulls_frame()),
        )
        stem.with_suffix(".tex").write_text(_latex(table), encoding="utf-8")


def _latex(table: TopicTable) -> str:
    known = [c for c in ("adapter", "site", "seed", "dictionary", "setting") if c in table.columns]
    printed = ["value", "interval", "chance", "chance_interval", "null", "difference", "n", "unit"]
    headings = {"interval": "95 % interval", "chance_interval": "95 % of chance"}
    rows = [
        [row.title, *(getattr(row, c) for c in known), *(getattr(row, c) for c in printed), verdict]
        for row in table.rows
        for verdict in [f"{row.symbol} {row.verdict}"]
    ]
    names = [headings.get(c, c.capitalize() if c != "n" else c) for c in (*known, *printed)]
    return long_table(table.topic.title, ["Number", *names, "Verdict"], rows)


def _topic_table(topic: ReportTopic, estimates: list[Estimate], results: Results) -> TopicTable:
    measures = measure_order(estimate.measure for estimate in estimates)
    ordered = _in_table_order(estimates, results)
    rows = [table_row(estimate) for estimate in ordered]
    optional = ("adapter", "rank", "site", "seed", "dictionary", "setting", "nulls")
    summary = []
    for measure in measures:
        taken = measured(results, measure)
        for of in dictionary_order(taken):
            chosen = [e for e in taken if Of.key(e.key) == of]
            summary.append(_matrix_row(measure, of, chosen, [chosen]))
    return TopicTable(
        topic=topic,
        estimates=ordered,
        summary=summary,
        rows=rows,
        definitions=[(measure, definition_of(measure)) for measure in measures],
        columns={column for column in optional if any(getattr(row, column) for row in rows)},
    )


def _in_table_order(estimates: Sequence[Estimate], results: Results) -> list[Estimate]:
    measures = measure_order(estimate.measure for estimate in estimates)
    dictionaries = dictionary_order(estimates)
    adapters, sites = ["", *results.adapters], ["", *results.sites]

    def key(estimate: Estimate) -> tuple[int, int, int, int, int]:
        place = estimate.key
        return (
            measures.index(estimate.measure),
            dictionaries.index(Of.key(place)),
            adapters.index(place.adapter),
            sites.index(place.site),
            place.seed or 0,
        )

    return sorted(estimates, key=key)


def _matrix_row(
    measure: str, of: Of, estimates: list[Estimate], cells: list[list[Estimate]]
) -> MatrixRow:
    definition = definition_of(measure)
    nulls = dict.fromkeys(e.headline.name for e in estimates if e.headline is not None)
    return MatrixRow(
        measure=measure,
        title=definition.title,
        dictionary=str(of),
        unit=estimates[0].unit,
        apart=definition.apart,
        value=span(estimate.value for estimate in estimates),
        chance=span(estimate.chance for estimate in estimates),
        null=", ".join(nulls),
        cells=[_cell(measure, cell) for cell in cells],
    )


def _cell(measure: str, estimates: list[Estimate]) -> VerdictCell:
    tally = VerdictTally.of(estimates)
    counts: dict[Verdict, int] = {
        "above": tally.above,
        "equal": tally.equal,
        "not settled": tally.unsettled,
        "below": tally.below,
        "no verdict": tally.without,
    }
    found = tally.found(measure)
    present = {verdict: count for verdict, count in counts.items() if count}
    return VerdictCell(
        text="  ".join(f"{SYMBOLS[verdict]} {count}" for verdict, count in present.items()),
        words=", ".join(f"{count} of {tally.total} {v}" for v, count in present.items()),
        found=found,
        at=tally.equal + tally.unsettled,
        opposite=tally.above + tally.below - found,
        total=tally.total,
    )
