"""The page: one self-contained file made from words, tables and figures.

Text in the results comes from adapters, models and their outputs, so nothing of it is markup: the
templates escape it, and data for the figures is JSON in which `<`, `>`, `&` and the line
separators U+2028 and U+2029 are written as escapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from lorascope.measures.definitions import definition_of
from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.conditions import seeds
from lorascope.report.fact_tables import FactTable, csv_uri, fact_table, fact_tables
from lorascope.report.figure import Figure
from lorascope.report.figure_files import written_figures
from lorascope.report.formatting import detail, listing, number, shortened, study_title
from lorascope.report.latents import Browsed, read_latents
from lorascope.report.markup import content_policy, embedded_json
from lorascope.report.rendering import asset, rendered, vega_script
from lorascope.report.result import Results
from lorascope.report.tables import TableRow
from lorascope.results import Estimates, Key
from lorascope.results.labels import Of
from lorascope.runs import write_atomically
from lorascope.studies.audit.sections.carriers import carrier_rows
from lorascope.studies.audit.sections.condition_pairs import condition_pairs
from lorascope.studies.audit.sections.drift import drift_sections
from lorascope.studies.audit.sections.features import feature_section, write_features
from lorascope.studies.audit.sections.figures import figures
from lorascope.studies.audit.sections.labels import read_labels
from lorascope.studies.audit.sections.paper import paper_tables, write_paper_tables
from lorascope.studies.audit.sections.tables import (
    TopicTable,
    topic_tables,
    verdict_matrix,
    write_tables,
)
from lorascope.studies.audit.sections.topics import ReportTopic
from lorascope.studies.audit.sections.words import words

# Rows of all the tables of numbers on the page; beyond that each shows the same share of its own.
PAGE_NUMBERS: Final = 2000


@dataclass(frozen=True)
class TopicSection:
    """One topic on the page.

    Attributes:
        topic: heading and question.
        sentences: what was found.
        figures: its figures.
        table: its numbers.
        rows: those of them that stand on the page.
        csv, chance_csv: where all of them and their chance levels are: in the page as data URIs, or
            beside it where the page holds only some.
    """

    topic: ReportTopic
    sentences: list[str]
    figures: list[Figure]
    table: TopicTable
    rows: list[TableRow]
    csv: str
    chance_csv: str


def figures_of(results: Results) -> list[Figure]:
    """The figures on it, drawn anew."""
    return list(figures(results))


def write_page(results: Results) -> Path:
    """Write `report/` of a run: figures, tables, then the page, whose path it returns."""
    folder = results.run / "report"
    page = folder / "index.html"
    with written_figures(figures(results), folder / "figures") as drawn:
        tables, browsed = topic_tables(results), read_latents(results.run)
        write_tables(tables, folder / "tables")
        write_paper_tables(paper_tables(results), folder / "tables")
        write_features(browsed, read_labels(results.run), folder / "features")
        text = render(results, drawn, tables, browsed)
    write_atomically(page, text)
    return page


def render(
    results: Results, drawn: list[Figure], tables: list[TopicTable], browsed: Sequence[Browsed]
) -> str:
    """The page's HTML."""
    facts, said = results.facts, words(results, browsed)
    features = feature_section(browsed, read_labels(results.run))
    sides, stages = condition_pairs(results), stage_table(facts)
    share = min(1.0, PAGE_NUMBERS / max(1, len(results.numbers)))
    # In the order in which they run.
    scripts = [vega_script(), asset("script.js")]
    scripts += [features.script] if features else []
    scripts += [asset("sides.js")] if sides else []
    scripts += [asset("copying.js")]
    return rendered(
        "index.html.j2",
        title=_title(results),
        said=said,
        sanity_checks=facts.get("sanity_checks", []),
        adapters=results.adapters,
        matrix=verdict_matrix(results),
        seeds=seeds(results),
        sections=[_section(table, drawn, said.by_topic, share) for table in tables],
        summary=[figure for figure in drawn if figure.topic == "summary"],
        paper=paper_tables(results),
        null_table=null_table(results),
        samples=facts.get("samples", []),
        readings=readings(results, browsed),
        drifts=drift_sections(facts, results.adapters),
        fact_tables=[*fact_tables(facts), *([stages] if stages.rows else [])],
        definitions=[each for table in tables for each in table.definitions],
        command=str(facts.get("command", "")),
        settings=json.dumps(facts.get("settings", {}), indent=2, ensure_ascii=False, default=str),
        features=features,
        style=asset("style.css") + (features.style if features else ""),
        sides=Markup(embedded_json(sides.plain())) if sides else None,
        scripts=scripts,
        policy=content_policy(*scripts),
        config=json.dumps(EXPORT_CONFIG),
        specs=Markup(embedded_json({figure.key: figure.spec for figure in drawn})),
    )


def _title(results: Results) -> str:
    """The study's name, and what which adapters did to which model."""
    model = shortened(str(results.facts.get("model", {}).get("id", "the base model")))
    whose = listing([shortened(name, 24) for name in results.adapters], most=3) or "nothing"
    settings = results.facts.get("settings", {})
    return study_title(settings, f"what {whose} did to {model}")


def readings(results: Results, browsed: Sequence[Browsed] = ()) -> list[dict[str, Any]]:
    """What each adapter learned, in words, for the page; numbers printed."""
    told = results.facts.get("read", {})
    return [
        {
            **told[name],
            "adapter": name,
            "carried": carrier_rows(told[name].get("carriers", []), name, browsed),
            "phrases": [
                {**one, "q": number(one["q"]), "nulls": ", ".join(map(str, one["nulls"])) or "–"}
                for one in told[name]["phrases"]
            ],
        }
        for name in results.adapters
        if name in told
    ]


def null_table(results: Results) -> FactTable:
    """Values of null adapters and of dictionaries trained on nothing, one row a number."""
    records: list[Mapping[str, Any]] = []
    values: dict[tuple[str, Key], list[float]] = {}
    for estimate in results.estimates.of_nulls:
        values.setdefault((estimate.measure, replace(estimate.key, draw=None)), []).append(
            estimate.value
        )
    for (measure, key), drawn in values.items():
        records.append(
            {
                "number": definition_of(measure).title,
                "null": key.null,
                "for adapter": key.adapter,
                "site": key.site,
                "dictionary": str(Of.key(key)),
                "setting": detail(key),
                "draws": len(drawn),
                "values": ", ".join(number(value) for value in drawn),
            }
        )
    return fact_table("Null adapters", records)


def stage_table(facts: Mapping[str, Any]) -> FactTable:
    """Each stage with its seconds and the hash of all it depends on."""
    keys = facts.get("made_from", {})
    records: list[Mapping[str, Any]] = [
        {"stage": name, "seconds": seconds, "made from": keys.get(name, "")[:16]}
        for name, seconds in facts.get("seconds", {}).items()
    ]
    return fact_table("Stages", records)


def _section(
    table: TopicTable, drawn: list[Figure], sentences: dict[str, list[str]], share: float
) -> TopicSection:
    key = table.topic.key
    inside = {"csv": f"tables/{key}.csv", "chance_csv": f"tables/{key}_chance_levels.csv"}
    if share >= 1:
        inside = {
            "csv": csv_uri(Estimates(table.estimates).to_frame()),
            "chance_csv": csv_uri(Estimates(table.estimates).nulls_frame()),
        }
    return TopicSection(
        topic=table.topic,
        sentences=sentences.get(key, []),
        figures=[figure for figure in drawn if figure.topic == key],
        table=table,
        rows=first_seeds(table, share),
        **inside,
    )


def first_seeds(table: TopicTable, share: float) -> list[TableRow]:
    """A share of a table's rows, in its order: those of the first seeds."""
    most = math.ceil(share * len(table.rows))
    if most >= len(table.rows):
        return table.rows
    seeds = [estimate.key.seed or 0 for estimate in table.estimates]
    kept = sorted(range(len(seeds)), key=lambda row: seeds[row])[:most]
    return [table.rows[row] for row in sorted(kept)]
