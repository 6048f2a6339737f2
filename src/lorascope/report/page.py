"""The page: one self-contained file made from words, tables and figures.

Text in the results comes from adapters, models and their outputs, so nothing of it is markup: the
templates escape it, and data for the figures is JSON in which `<`, `>`, `&` and the line
separators U+2028 and U+2029 are written as escapes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lorascope.report.conditions import seeds
from lorascope.report.drawn import VEGA_LITE_VERSION, Figure
from lorascope.report.features import feature_section, write_features
from lorascope.report.figures import figures, write_figures
from lorascope.report.formatting import number
from lorascope.report.markup import embedded_json
from lorascope.report.paper import paper_tables, write_paper_tables
from lorascope.report.result import Results, chance_table, estimate_table
from lorascope.report.tables import TopicTable, topic_tables, verdict_matrix, write_tables
from lorascope.report.topics import Topic
from lorascope.report.words import words


@dataclass(frozen=True)
class Section:
    """One topic on the page.

    Attributes:
        topic: heading and question.
        sentences: what was found.
        figures: its figures.
        table: its numbers.
        csv, chance_csv: the numbers and their chance levels as data URIs.
    """

    topic: Topic
    sentences: list[str]
    figures: list[Figure]
    table: TopicTable
    csv: str
    chance_csv: str


@dataclass(frozen=True)
class FactTable:
    """Facts of one kind: heading, columns and printed cells."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def write_report(results: Results) -> None:
    """Write `report/` of a run: figures, tables, then the page."""
    folder = results.run / "report"
    drawn, tables = figures(results), topic_tables(results)
    write_figures(drawn, folder / "figures")
    write_tables(tables, folder / "tables")
    write_paper_tables(paper_tables(results), folder / "tables")
    write_features(results.run, folder / "features")
    page, part = folder / "index.html", folder / "index.html.part"
    part.write_text(render(results, drawn, tables), encoding="utf-8")
    part.replace(page)


def render(results: Results, drawn: list[Figure], tables: list[TopicTable]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("lorascope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts, said = results.facts, words(results)
    features = feature_section(results.run)
    return environment.get_template("index.html.j2").render(
        model=facts.get("model", {}).get("id", "base model"),
        said=said,
        gates=facts.get("gates", []),
        adapters=results.adapters,
        matrix=verdict_matrix(results),
        seeds=seeds(results),
        sections=[_section(table, drawn, said.by_topic) for table in tables],
        summary=[figure for figure in drawn if figure.topic == "summary"],
        paper=paper_tables(results),
        samples=facts.get("samples", []),
        fact_tables=fact_tables(facts),
        command=str(facts.get("command", "")),
        settings=json.dumps(facts.get("settings", {}), indent=2, ensure_ascii=False, default=str),
        features=features,
        style=Markup(_asset("style.css")) + (features.style if features else ""),
        script=Markup(_asset("script.js")),
        vega=Markup(vega_script()),
        specs=Markup(embedded_json({figure.key: figure.spec for figure in drawn})),
    )


def fact_tables(facts: Mapping[str, Any]) -> list[FactTable]:
    """The run's facts as tables; facts that are absent or empty have none."""
    records: dict[str, Iterable[Mapping[str, Any]]] = {
        "Model": [facts["model"]] if facts.get("model") else [],
        "Adapters": facts.get("adapters", []),
        "Adapter training": facts.get("adapter_training", []),
        "Tokens": [
            {"rows": rows, **counts} for rows, counts in facts.get("tokens", {}).items() if counts
        ],
        "Dictionaries": [
            {key: value for key, value in record.items() if not isinstance(value, list)}
            for record in facts.get("dictionaries", [])
        ],
        "Versions": [facts["versions"]] if facts.get("versions") else [],
        "Time in seconds": [facts["seconds"]] if facts.get("seconds") else [],
    }
    tables = (fact_table(title, list(rows)) for title, rows in records.items())
    return [table for table in tables if table.rows]


def _section(table: TopicTable, drawn: list[Figure], sentences: dict[str, list[str]]) -> Section:
    return Section(
        topic=table.topic,
        sentences=sentences.get(table.topic.key, []),
        figures=[figure for figure in drawn if figure.topic == table.topic.key],
        table=table,
        csv=csv_uri(estimate_table(table.estimates)),
        chance_csv=csv_uri(chance_table(table.estimates)),
    )


def fact_table(title: str, records: Sequence[Mapping[str, Any]]) -> FactTable:
    """Records as a table, a column for each key."""
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
    """A table's CSV as a data URI."""
    text = table.to_csv(index=False)
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


def _asset(name: str) -> str:
    return (files("lorascope.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script that leaves only `vegaEmbed` behind."""
    bundle = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE_VERSION
    )
    # Nothing in the bundle may end the script element that holds it.
    return "(() => {" + bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--") + "})();"
