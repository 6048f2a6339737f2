"""The page of an adapt study: one self-contained file, made as the audit's is.

Texts in the results are not to be trusted: the template escapes them, and data for the figures
is JSON that cannot end its script element.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lorascope.measures.definitions import Definition
from lorascope.report.adapt.figures import adapt_figures
from lorascope.report.adapt.found import Found
from lorascope.report.adapt.tables import adapt_tables, write_adapt_tables
from lorascope.report.adapt.words import SECTIONS, Section, scope, sentences, verdict
from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.drawn import Figure
from lorascope.report.figures import write_figures
from lorascope.report.markup import content_policy, embedded_json
from lorascope.report.page import FactTable, csv_uri, fact_table, vega_script
from lorascope.report.paper import PaperTable, frame
from lorascope.report.result import Results, estimate_table
from lorascope.report.tables import TableRow, table_row
from lorascope.report.topics import definition_of, measure_order
from lorascope.runs import write_atomically


@dataclass(frozen=True)
class Part:
    """One experiment on the page.

    Attributes:
        section: heading and question.
        sentences: what was found.
        figures, tables: of the experiment.
        downloads: the tables as data URIs of CSV.
        definitions: of its measures.
    """

    section: Section
    sentences: list[str]
    figures: list[Figure]
    tables: list[PaperTable]
    downloads: list[str]
    definitions: list[tuple[str, Definition]]


def write_adapt_report(results: Results) -> Path:
    """Write `report/` of a run: figures, tables, then the page, whose path it returns."""
    found = Found(results)
    folder = results.run / "report"
    drawn, tables = adapt_figures(found), adapt_tables(found)
    write_figures(drawn, folder / "figures")
    write_adapt_tables(tables, folder / "tables")
    page = folder / "index.html"
    write_atomically(page, render_adapt(found, drawn, tables))
    return page


def render_adapt(found: Found, drawn: list[Figure], tables: dict[str, list[PaperTable]]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("lorascope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts, said = found.facts, sentences(found)
    numbers = found.results.numbers
    scripts = [Markup(vega_script()), Markup(_asset("script.js"))]
    return environment.get_template("adapt.html.j2").render(
        model=facts.get("model", {}).get("id", "the model"),
        scope=scope(found),
        verdict=verdict(found),
        warnings=[str(one) for one in facts.get("warnings", [])],
        gates=facts.get("gates", []),
        parts=_parts(said, drawn, tables),
        fact_tables=_fact_tables(found),
        steering=facts.get("steering", []),
        rows=_rows(found),
        numbers_csv=csv_uri(estimate_table(numbers)),
        command=str(facts.get("command", "")),
        settings=json.dumps(facts.get("settings", {}), indent=2, ensure_ascii=False, default=str),
        style=Markup(_asset("style.css")),
        scripts=scripts,
        policy=content_policy(*scripts),
        config=json.dumps(EXPORT_CONFIG),
        specs=Markup(embedded_json({figure.key: figure.spec for figure in drawn})),
    )


def _parts(
    said: dict[str, list[str]], drawn: list[Figure], tables: dict[str, list[PaperTable]]
) -> list[Part]:
    parts = []
    for section in SECTIONS:
        own = tables.get(section.key, [])
        figures = [figure for figure in drawn if figure.topic == section.key]
        if not own and not figures:
            continue
        measures = measure_order(e.measure for table in own for e in table.estimates)
        parts.append(
            Part(
                section,
                said.get(section.key, []),
                figures,
                own,
                [csv_uri(frame(table)) for table in own],
                [(measure, definition_of(measure)) for measure in measures],
            )
        )
    return parts


def _rows(found: Found) -> list[TableRow]:
    order = {name: i for i, name in enumerate(measure_order(found.results.estimates["measure"]))}
    ordered = sorted(found.results.numbers, key=lambda e: order[e.measure])
    return [table_row(estimate) for estimate in ordered]


def _fact_tables(found: Found) -> list[FactTable]:
    facts = found.facts
    texts = facts.get("texts", {})
    counted = [
        {"documents to": what, **counts}
        for what, counts in (
            ("train and fit on", texts.get("training")),
            ("measure on", texts.get("held_out")),
        )
        if counts
    ]
    shown = ("name", "steps", "fit_tokens", "fit_seconds", "parameters")
    fits = [{key: fit[key] for key in shown} for fit in facts.get("fits", [])]
    tables = {
        "Dictionaries": list(found.dictionaries.values()),
        "Texts": counted,
        "Fits": fits,
        "Versions": [facts["versions"]] if facts.get("versions") else [],
    }
    return [fact_table(title, rows) for title, rows in tables.items() if rows]


def _asset(name: str) -> str:
    return (files("lorascope.report") / "templates" / name).read_text(encoding="utf-8")
