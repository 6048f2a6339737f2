"""The page of an evaluation, and its one table: every number beside floor, chance and baselines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import altair as alt
import pandas as pd

from lorascope.measures.definitions import definition_of
from lorascope.report.fact_tables import fact_table
from lorascope.report.figure import Figure
from lorascope.report.figure_files import write_figures
from lorascope.report.formatting import (
    interval,
    number,
    plural,
    shortened,
    study_title,
    verdict_words,
)
from lorascope.report.paper_table import PaperTable, PrintedCell
from lorascope.report.result import Results
from lorascope.results import Estimate, Null
from lorascope.results.null_names import OTHER_DICTIONARY, RANDOM_DECODER
from lorascope.runs import write_atomically
from lorascope.stats.intervals import detectable
from lorascope.studies.adapt.sections.page import Page, parts_of
from lorascope.studies.adapt.sections.tables import write_adapt_tables
from lorascope.studies.adapt.sections.words import ExperimentSection
from lorascope.studies.evaluate.comparison_page import (
    EVALUATIONS_COMPARED,
    compared_figures,
    write_comparison_page,
)
from lorascope.studies.evaluate.sections import MEANS, SECTIONS, section_of

COLUMNS: Final = (
    "Value",
    "Verdict",
    "Floor",
    "Random decoder",
    "Other seed",
    "Hardest rival",
    "Difference",
    "Shows from",
)
# Sets of one source that stand in the table; all are in the long one.
_MOST_ROWS: Final = 120


def evaluation_cells(estimate: Estimate) -> list[PrintedCell]:
    """One row of the table, `COLUMNS`: the value, what it stands beside, what the data can show."""
    floor = next(
        (
            null
            for null in estimate.nulls
            if null.low == null.high == null.level
            and null.name not in (RANDOM_DECODER, OTHER_DICTIONARY)
        ),
        None,
    )
    rival = estimate.headline
    gap = estimate.difference(rival) if rival is not None else (math.nan, math.nan)
    value = PrintedCell(number(estimate.value), interval(*estimate.interval), estimate.value)
    difference = estimate.value - rival.level if rival is not None else math.nan
    return [
        value,
        PrintedCell.plain(verdict_words(estimate) if estimate.nulls else "–"),
        _level(floor),
        _level(_named(estimate, RANDOM_DECODER)),
        _level(_named(estimate, OTHER_DICTIONARY)),
        PrintedCell.plain(rival.name if rival is not None else "–"),
        PrintedCell(number(difference), interval(*gap), difference)
        if rival is not None
        else PrintedCell("–"),
        PrintedCell(number(detectable(gap))) if not math.isnan(gap[0]) else PrintedCell("–"),
    ]


def evaluation_record(estimate: Estimate) -> dict[str, Any]:
    """One number as plain data: what it is of, its interval, all it stands beside, its verdict."""
    key = {name: value for name, value in asdict(estimate.key).items() if value not in ("", None)}
    nulls = []
    for null in estimate.nulls:
        gap = estimate.difference(null)
        nulls.append(
            {
                "null": null.name,
                "rival": null.rival,
                "level": null.level,
                "difference": list(gap),
                "shows_from": detectable(gap),
                "verdict": estimate.against(null),
            }
        )
    return {
        "measure": estimate.measure,
        **key,
        "value": estimate.value,
        "interval": list(estimate.interval),
        "n": estimate.n,
        "unit": estimate.unit,
        "nulls": nulls,
        "verdict": estimate.verdict,
    }


def evaluation_label(estimate: Estimate) -> str:
    """What a row is of: number, subject, condition, place."""
    key = estimate.key
    title = definition_of(estimate.measure).title
    if key.about:
        title = f"{definition_of(key.about).title}: with the adapter less without"
    parts = [
        title,
        key.dictionary,
        key.model,
        key.site,
        key.topic,
        "" if key.k is None else f"k = {key.k}",
        "" if key.size is None else f"n = {key.size}",
        key.setting,
    ]
    return ", ".join(part for part in parts if part)


def _named(estimate: Estimate, name: str) -> Null | None:
    return next((null for null in estimate.nulls if null.name == name), None)


def _level(null: Null | None) -> PrintedCell:
    if null is None:
        return PrintedCell("–")
    around = "" if null.low == null.high else interval(null.low, null.high)
    return PrintedCell(number(null.level), around, null.level)


def evaluation_tables(results: Results) -> dict[str, list[PaperTable]]:
    """One table an evaluation, {section: [table]}."""
    found: dict[str, list[PaperTable]] = {}
    for number_, (key, title, _) in enumerate(SECTIONS, start=1):
        own = [e for e in results.numbers if section_of(e) == key]
        if not own:
            continue
        shown = _shown(own)
        rows = [(evaluation_label(e), evaluation_cells(e)) for e in shown]
        kept = _kept([cells for _, cells in rows])
        rows = [(label, [cells[place] for place in kept]) for label, cells in rows]
        left = "" if len(shown) == len(own) else f" ({len(own) - len(shown)} more below)"
        table = PaperTable(
            number_,
            key,
            f"{title}, 95 % intervals{left}",
            "Number",
            [COLUMNS[i] for i in kept],
            rows,
            shown,
        )
        found[key] = [table]
    return found


def _kept(rows: Sequence[Sequence[PrintedCell]]) -> list[int]:
    """Columns in which some row has anything: without another seed there is no such column."""
    return [
        place for place in range(len(COLUMNS)) if any(cells[place].text != "–" for cells in rows)
    ]


def _shown(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Means over sets first; single sets as far as there is room."""
    first = [e for e in estimates if not e.key.topic or e.key.topic in MEANS]
    rest = [e for e in estimates if e not in first]
    return [*first, *rest][:_MOST_ROWS]


def figures_of(results: Results) -> list[Figure]:
    """Firing rates of every dictionary, and probe accuracy over k."""
    if results.facts.get("workflow") == EVALUATIONS_COMPARED:
        return compared_figures(results)
    return [*_densities(results.facts), *_over_k(results)]


def _densities(facts: Mapping[str, Any]) -> Iterable[Figure]:
    rows = []
    for stage, found in facts.get("found", {}).items():
        for one in found.get("density", []):
            edges = one["edges"]
            name = f"{stage.partition('/')[2]} at {one['site']}, {one['condition']}"
            for low, high, count in zip(edges, edges[1:], one["counts"], strict=False):
                rows.append({"of": name, "low": low, "high": high, "latents": count})
    if not rows:
        return
    chart = (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar()
        .encode(
            x=alt.X("low:Q", bin="binned", title="log10 of the share of rows it is active on"),
            x2="high:Q",
            y=alt.Y("latents:Q", title="latents"),
            row=alt.Row("of:N", title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
        )
        .properties(height=80)
    )
    caption = "Latents by how often they are active on held-out rows; dead ones are left out."
    yield Figure.of("density", "core", "How often latents fire", caption, chart)


def _over_k(results: Results) -> Iterable[Figure]:
    taken = [
        e
        for e in results.numbers
        if e.measure == "evaluate.probe_accuracy" and e.key.topic in MEANS
    ]
    if not taken:
        return
    rows = []
    for e in taken:
        panel = f"{e.key.dictionary} at {e.key.site}, {e.key.model}"
        low, high = e.interval
        known = {"panel": panel, "k": str(e.key.k)}
        rows.append({**known, "of": "the dictionary", "value": e.value, "low": low, "high": high})
        for null in e.nulls:
            bounds = {"low": null.low, "high": null.high}
            rows.append({**known, "of": null.name, "value": null.level, **bounds})
    order = list(dict.fromkeys(row["k"] for row in rows))
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X(
            "k:O",
            sort=order,
            title="latents, or channels, a probe reads",
            axis=alt.Axis(labelAngle=0),
        ),
        color=alt.Color("of:N", title=None, legend=alt.Legend(labelLimit=400)),
        xOffset="of:N",
    )
    points = base.mark_point(filled=True).encode(
        y=alt.Y("value:Q", title="accuracy", scale=alt.Scale(zero=False))
    )
    chart = (points + base.mark_rule().encode(y="low:Q", y2="high:Q")).facet(
        row=alt.Row("panel:N", title=None)
    )
    caption = "Mean over sets; lines are 95 % intervals over sets."
    yield Figure.of("probing", "probing", "Accuracy over the number of latents", caption, chart)


def evaluation_sentences(results: Results) -> list[str]:
    """What was found, a sentence a subject and evaluation, the first two the most important."""
    said = []
    for measure, setting in (
        ("evaluate.ce_recovered", "mean ablation"),
        ("evaluate.probe_accuracy", ""),
        ("evaluate.absorption_full", ""),
    ):
        for e in results.numbers:
            if e.measure != measure or (setting and e.key.setting != setting):
                continue
            if e.key.topic and not (e.key.topic in MEANS and e.key.k == 1):
                continue
            rival = e.headline
            beside = f", {rival.name} {number(rival.level)}" if rival is not None else ""
            k = "" if e.key.k is None else f" with k = {e.key.k}"
            said.append(
                f"{definition_of(measure).title} of {e.key.dictionary} ({e.key.model}){k}: "
                f"{number(e.value)} {interval(*e.interval)}{beside}: {verdict_words(e)}."
            )
    return said


def write_page(results: Results) -> Path:
    """Write `report/` of an evaluation, or of two against each other; returns the page's path."""
    if results.facts.get("workflow") == EVALUATIONS_COMPARED:
        return write_comparison_page(results)
    folder, facts = results.run / "report", results.facts
    drawn, tables = figures_of(results), evaluation_tables(results)
    write_figures(drawn, folder / "figures")
    write_adapt_tables(tables, folder / "tables")
    model = shortened(str(facts.get("model", {}).get("id", "the model")))
    subjects = list(facts.get("subjects", {}))
    title = study_title(facts.get("settings", {}), f"{plural(len(subjects), 'subject')} on {model}")
    texts = facts.get("texts", {}).get("held_out", {})
    page = Page(
        title=title,
        eyebrow="Dictionaries and models evaluated",
        heading=title,
        scope=f"{', '.join(subjects)} on {model}; core is measured on {texts.get('tokens', 0):,} "
        f"held-out tokens of {texts.get('documents', 0):,} documents.",
        verdict=evaluation_sentences(results),
        warnings=[str(one) for one in facts.get("warnings", [])],
        parts=parts_of([ExperimentSection(*one) for one in SECTIONS], {}, drawn, tables),
        fact_tables=_fact_tables(facts),
        estimates=results.numbers,
        figures=drawn,
        command=str(facts.get("command", "")),
        settings=facts.get("settings", {}),
        closing="“Shows from” is the smallest true difference from the hardest rival that data "
        "like these would tell from none in four of five samples.",
    )
    path = folder / "index.html"
    write_atomically(path, page.html())
    return path


def _fact_tables(facts: Mapping[str, Any]) -> list[Any]:
    subjects = []
    for name, one in facts.get("subjects", {}).items():
        where = ", ".join(f"{site}={address}" for site, address in one["dictionaries"].items())
        on = one["fitted"] or one["adapter"]
        kind = "fit" if one["fitted"] else "delta" if one["delta"] else "adapter" if on else ""
        subjects.append({"subject": name, "dictionaries": where, "adapter": on, "kind": kind})
    texts = [{"documents to": what, **counts} for what, counts in facts.get("texts", {}).items()]
    keys = facts.get("made_from", {})
    stages = [
        {"stage": name, "seconds": seconds, "made from": keys.get(name, "")[:16]}
        for name, seconds in facts.get("seconds", {}).items()
    ]
    tables: dict[str, list[Any]] = {
        "Subjects": subjects,
        "Texts": texts,
        "Stages": stages,
        "Versions": [facts["versions"]] if facts.get("versions") else [],
    }
    return [fact_table(title, rows) for title, rows in tables.items() if rows]
