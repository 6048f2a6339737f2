"""The page of an adapt study: one self-contained file, made as the audit's is.

Texts in the results are not to be trusted: the template escapes them, and data for the figures
is JSON that cannot end its script element.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lorascope.measures.definitions import Definition, definition_of
from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.fact_tables import FactTable, csv_uri, fact_table
from lorascope.report.figure import Figure
from lorascope.report.figure_files import write_figures
from lorascope.report.formatting import listing, shortened, study_title
from lorascope.report.left_out import left_out_lines, left_out_rows
from lorascope.report.markup import content_policy, embedded_json
from lorascope.report.paper_table import PaperTable, frame
from lorascope.report.placing import further
from lorascope.report.rendering import asset, rendered, vega_script
from lorascope.report.result import Results
from lorascope.report.tables import TableRow, measure_order, table_row
from lorascope.results import Estimate, Estimates
from lorascope.runs import write_atomically
from lorascope.studies.adapt.sections.figures import adapt_figures
from lorascope.studies.adapt.sections.reported import not_asked
from lorascope.studies.adapt.sections.results import AdaptResults
from lorascope.studies.adapt.sections.tables import adapt_tables, write_adapt_tables
from lorascope.studies.adapt.sections.words import (
    SECTIONS,
    ExperimentSection,
    scope,
    sentences,
    verdict,
)


@dataclass(frozen=True)
class ExperimentPart:
    """One experiment on the page.

    Attributes:
        section: heading and question.
        sentences: what was found.
        figures, tables: of the experiment.
        downloads: the tables as data URIs of CSV.
        definitions: of its measures.
    """

    section: ExperimentSection
    sentences: list[str]
    figures: list[Figure]
    tables: list[PaperTable]
    downloads: list[str]
    definitions: list[tuple[str, Definition]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on one page; what stands in it is plain text.

    Attributes:
        title, eyebrow, heading, scope: its head.
        verdict: first the two sentences that matter most.
        warnings, sanity_checks: what to know before relying on it.
        parts: its sections.
        fact_tables: about the run.
        steering: the steered latents.
        estimates: every number.
        figures: those of all parts.
        command, settings: what made it.
        loading: Python that opens the main fit; empty where nothing was fitted.
        closing: small print at the end.
    """

    title: str
    eyebrow: str
    heading: str
    scope: str
    verdict: list[str]
    warnings: list[str]
    sanity_checks: list[dict[str, Any]] = field(default_factory=list)
    parts: list[ExperimentPart]
    fact_tables: list[FactTable]
    steering: list[dict[str, Any]] = field(default_factory=list)
    estimates: Sequence[Estimate]
    figures: list[Figure]
    command: str
    settings: object
    loading: str = ""
    closing: str = ""

    def html(self) -> str:
        """One self-contained file."""
        scripts = [vega_script(), asset("script.js"), asset("copying.js")]
        return rendered(
            "adapt.html.j2",
            page=self,
            rows=_rows(self.estimates),
            numbers_csv=csv_uri(Estimates(self.estimates).to_frame()),
            settings=json.dumps(self.settings, indent=2, ensure_ascii=False, default=str),
            style=asset("style.css"),
            scripts=scripts,
            policy=content_policy(*scripts),
            config=json.dumps(EXPORT_CONFIG),
            specs=Markup(embedded_json({figure.key: figure.spec for figure in self.figures})),
        )


def write_adapt_report(results: Results) -> Path:
    """Write `report/` of a run: figures, tables, then the page, whose path it returns."""
    found = AdaptResults(results)
    folder = results.run / "report"
    drawn, tables = adapt_figures(found), adapt_tables(found)
    write_figures(drawn, folder / "figures")
    write_adapt_tables(tables, folder / "tables")
    page = folder / "index.html"
    write_atomically(page, render_adapt(found, drawn, tables))
    return page


def render_adapt(
    found: AdaptResults, drawn: list[Figure], tables: dict[str, list[PaperTable]]
) -> str:
    """The page's HTML."""
    facts = found.facts
    model = shortened(str(facts.get("model", {}).get("id", "the model")))
    conditions = dict.fromkeys(str(fit["fitted"]) for fit in facts.get("fits", []))
    whose = (
        f"what {listing(list(conditions), most=3)} recover" if conditions else "what splicing costs"
    )
    title = study_title(facts.get("settings", {}), f"{whose} around dictionaries of {model}")
    return Page(
        title=title,
        eyebrow="A model fitted around its dictionaries",
        heading=title,
        scope=scope(found),
        verdict=verdict(found),
        warnings=[*left_out_lines(facts), *(str(one) for one in facts.get("warnings", []))],
        sanity_checks=facts.get("sanity_checks", []),
        parts=parts_of(SECTIONS, sentences(found), drawn, tables, not_asked),
        fact_tables=_fact_tables(found),
        steering=facts.get("steering", []),
        estimates=found.results.numbers,
        figures=drawn,
        command=str(facts.get("command", "")),
        settings=facts.get("settings", {}),
        loading=loading(found),
        closing="The table of every number has a row a seed. Every fit is a folder below fits/: "
        "with LoRA an ordinary PEFT adapter.",
    ).html()


def parts_of(
    sections: Sequence[ExperimentSection],
    said: dict[str, list[str]],
    drawn: list[Figure],
    tables: dict[str, list[PaperTable]],
    absent: Callable[[str], str] | None = None,
) -> list[ExperimentPart]:
    """The sections that have tables or figures, {section: its sentences, its tables} given.

    Args:
        absent: what stands in the place of a section without any; such sections are left out by
            default.
    """
    parts = []
    for section in sections:
        own = tables.get(section.key, [])
        figures = [figure for figure in drawn if figure.topic == section.key]
        if not own and not figures:
            if absent is not None:
                beside = said.get(section.key, [])[-1:]
                parts.append(
                    ExperimentPart(section, [absent(section.key), *beside], [], [], [], [])
                )
            continue
        measures = measure_order(e.measure for table in own for e in table.estimates)
        parts.append(
            ExperimentPart(
                section,
                said.get(section.key, []),
                figures,
                own,
                [csv_uri(frame(table)) for table in own],
                [(measure, definition_of(measure)) for measure in measures],
            )
        )
    return parts


def loading(found: AdaptResults) -> str:
    """Python that puts the main fit on its model again; with its dictionary, spliced."""
    main = found.main
    fits = found.fits(main) if main else []
    if not fits:
        return ""
    model, name = str(found.facts.get("model", {}).get("id", "")), str(fits[0]["name"])
    embedded = model in ("embedded", "embedded-it")
    base = (
        f"from lorascope.models.load import load_base\n\nbase, tokenizer = load_base({model!r})"
        if embedded
        else "from transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({model!r})"
    )
    folder = f"{_run_folder(found)}/fits/{name}"
    return (
        f"from peft import PeftModel\n{base}\nmodel = PeftModel.from_pretrained(base, {folder!r})"
    )


def _run_folder(found: AdaptResults) -> str:
    """Where the command that made the run put it: the page does not change with its place."""
    words = str(found.facts.get("command", "")).split()
    if "--out" in words[:-1]:
        return words[words.index("--out") + 1]
    return f"runs/{found.facts.get('settings', {}).get('name', 'adapt')}"


def _rows(estimates: Sequence[Estimate]) -> list[tuple[TableRow, str]]:
    """Every number, and what else it belongs to."""
    order = {name: i for i, name in enumerate(measure_order(e.measure for e in estimates))}
    ordered = sorted(estimates, key=lambda e: order[e.measure])
    return [(table_row(one), further(one.key)) for one in ordered]


def _fact_tables(found: AdaptResults) -> list[FactTable]:
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
    tables: dict[str, list[Any]] = {
        "Dictionaries": list(found.dictionaries.values()),
        "Texts": counted,
        "What was used": left_out_rows(facts),
        "Fits": fits,
        "Versions": [facts["versions"]] if facts.get("versions") else [],
    }
    return [fact_table(title, rows) for title, rows in tables.items() if rows]
