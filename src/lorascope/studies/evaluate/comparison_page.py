"""The page of two evaluations held against each other: every number of both, and the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import altair as alt
import pandas as pd

from lorascope.measures.definitions import definition_of
from lorascope.report.fact_tables import fact_table
from lorascope.report.figure import Figure
from lorascope.report.figure_files import write_figures
from lorascope.report.formatting import interval, number, plural, verdict_words
from lorascope.report.paper_table import PaperTable, PrintedCell
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.runs import write_atomically
from lorascope.stats.intervals import detectable
from lorascope.studies.adapt.sections.page import Page, parts_of
from lorascope.studies.adapt.sections.tables import write_adapt_tables
from lorascope.studies.adapt.sections.words import ExperimentSection
from lorascope.studies.evaluate.sections import MEANS, SECTIONS, section_of

# What the facts of such a comparison call it.
EVALUATIONS_COMPARED: Final = "evaluate runs"
COLUMNS: Final = ("First", "Second", "Second less first", "Shows from", "Paired by", "Verdict")
# What the page says in words, and a terminal prints: one number an evaluation or two.
HEADLINES: Final = (
    "evaluate.loss",
    "evaluate.ce_recovered",
    "evaluate.fvu",
    "evaluate.l0",
    "evaluate.probe_accuracy",
    "evaluate.absorption_full",
    "evaluate.absorption_fraction",
    "evaluate.tpp",
    "evaluate.scr",
    "evaluate.detection",
    "evaluate.fuzzing",
    "evaluate.disentangling",
    "evaluate.benchmark",
)


def compared_label(estimate: Estimate, facts: Mapping[str, Any]) -> str:
    """What a row is of: number, the two sides where there are several pairs, condition, place."""
    parts = (definition_of(estimate.key.about).title, *_place(estimate, facts))
    return ", ".join(part for part in parts if part)


def _place(estimate: Estimate, facts: Mapping[str, Any]) -> list[str]:
    key = estimate.key
    return [
        f"{key.compared} and {key.dictionary}" if len(facts["pairs"]) > 1 else "",
        key.model,
        key.site,
        key.topic,
        "" if key.k is None else f"k = {key.k}",
        "" if key.size is None else f"n = {key.size}",
        key.setting,
    ]


def compared_cells(estimate: Estimate, sides: Mapping[str, Any]) -> list[PrintedCell]:
    """One row of the table, `COLUMNS`.

    Args:
        sides: of this number, as the facts have them.
    """
    gap = estimate.difference(estimate.nulls[0])
    return [
        *(_side(sides[name]) for name in ("first", "second")),
        PrintedCell(number(estimate.value), interval(*estimate.interval), estimate.value),
        PrintedCell(number(detectable(gap))),
        PrintedCell.plain(units_words(sides)),
        PrintedCell.plain(verdict_words(estimate)),
    ]


def units_words(sides: Mapping[str, Any]) -> str:
    """How many units are paired; of how many, where they are not all of both sides."""
    first, second = sides["units"]
    if not sides["kind"]:
        return f"nothing: {first:,} and {second:,} latents"
    shared = sides["shared"]
    rest = "" if first == second == shared else f" of {first:,} and {second:,}"
    return f"{shared:,}{rest} {sides['kind']}"


def _side(side: Sequence[Any]) -> PrintedCell:
    value, around = side
    return PrintedCell(number(value), interval(*around), value)


def headlines(results: Results) -> list[Estimate]:
    """The differences that a terminal prints: of means over sets, not of single ones."""
    return [
        e
        for e in results.numbers
        if e.key.about in HEADLINES
        and (e.key.about in ("evaluate.benchmark", "evaluate.tpp", "evaluate.scr") or _whole(e))
    ]


def _whole(estimate: Estimate) -> bool:
    return not estimate.key.topic or estimate.key.topic in MEANS


def compared_tables(results: Results) -> dict[str, list[PaperTable]]:
    """One table an evaluation, {section: [table]}."""
    found = {}
    for place, (key, title, _) in enumerate(SECTIONS, start=1):
        own = [e for e in results.numbers if section_of(e) == key]
        own = [e for e in own if _whole(e)] + [e for e in own if not _whole(e)]
        if own:
            sides = results.facts["sides"]
            rows = [
                (compared_label(e, results.facts), compared_cells(e, sides[str(e.key)]))
                for e in own
            ]
            title = f"{title}: both runs, and the second less the first, 95 % intervals"
            found[key] = [PaperTable(place, key, title, "Number", list(COLUMNS), rows, own)]
    return found


def compared_sentences(results: Results) -> list[str]:
    """How many differences leave 0, beside how many would by chance; then the ones that do."""
    numbers = results.numbers
    judged = [e for e in numbers if e.verdict != "no verdict"]
    apart = [e for e in judged if e.apart]
    said = [
        f"{len(apart)} of {plural(len(judged), 'difference')} leave 0; where nothing differs, "
        f"about one in twenty does ({number(0.05 * len(judged))} of so many)."
    ]
    sides = results.facts["sides"]
    for e in headlines(results):
        one, label = sides[str(e.key)], compared_label(e, results.facts)
        said.append(
            f"{label}: {number(one['first'][0])} and {number(one['second'][0])}; "
            f"second less first {number(e.value)} {interval(*e.interval)}: {_words(e)}."
        )
    return said


def _words(estimate: Estimate) -> str:
    return {"above": "more", "below": "less", "not settled": "not told from 0"}.get(
        estimate.verdict, estimate.verdict
    )


def compared_figures(results: Results) -> list[Figure]:
    """Every evaluation's main differences beside 0, a panel a number."""
    chosen = headlines(results)
    rows: dict[str, list[dict[str, Any]]] = {}
    for e in chosen:
        low, high = e.interval
        place = ", ".join(part for part in _place(e, results.facts) if part)
        known = {"number": definition_of(e.key.about).title, "place": place, "none": 0}
        found = rows.setdefault(section_of(e), [])
        found.append({**known, "value": e.value, "low": low, "high": high})
    return [
        Figure.of(
            f"differences_{key}",
            key,
            f"{title}: the second less the first",
            "A panel a number, each in its own unit; lines are 95 % intervals, grey is no "
            "difference.",
            _forest(rows[key]),
        )
        for key, title, _ in SECTIONS
        if key in rows
    ]


def _forest(rows: list[dict[str, Any]]) -> alt.FacetChart:
    base = alt.Chart(pd.DataFrame(rows)).encode(y=alt.Y("place:N", title=None, sort=None))
    layers = (
        base.mark_rule(color="#999999").encode(x="none:Q", y=alt.value(0), y2=alt.value("height"))
        + base.mark_rule().encode(x=alt.X("low:Q", title=None), x2="high:Q")
        + base.mark_point(filled=True, size=50).encode(x="value:Q")
    )
    heads = alt.Header(labelAngle=0, labelAlign="left", labelOrient="top", labelAnchor="start")
    return (
        layers.properties(width=360)
        .facet(row=alt.Row("number:N", title=None, sort=None, header=heads))
        .resolve_scale(x="independent", y="independent")
    )


def write_comparison_page(results: Results) -> Path:
    """Write `report/` of a comparison: tables, then the page, whose path it returns."""
    folder, facts = results.run / "report", results.facts
    tables, drawn = compared_tables(results), compared_figures(results)
    write_figures(drawn, folder / "figures")
    write_adapt_tables(tables, folder / "tables")
    pairs = facts["pairs"]
    names = " and ".join(dict.fromkeys(side["name"] for side in pairs[0]))
    if len(pairs) > 1:
        names = " and ".join(dict.fromkeys(str(side["run"]) for side in pairs[0]))
    heading = f"{names} evaluated alike"
    page = Page(
        title=heading,
        eyebrow="Two evaluations against each other",
        heading=heading,
        scope=f"{plural(len(pairs), 'pair')} of subjects; numbers are of the documents, texts, "
        "sets, letters and items that both runs have, and differences are paired by them.",
        verdict=compared_sentences(results),
        warnings=[str(one) for one in facts.get("warnings", [])],
        parts=parts_of([ExperimentSection(*one) for one in SECTIONS], {}, drawn, tables),
        fact_tables=[fact_table("Compared", [_subject(side) for pair in pairs for side in pair])],
        estimates=results.numbers,
        figures=drawn,
        command=str(facts.get("command", "")),
        settings=facts.get("settings", {}),
        closing="“Shows from” is the smallest true difference that data like these would tell "
        "from none in four of five samples.",
    )
    path = folder / "index.html"
    write_atomically(path, page.html())
    return path


def _subject(side: Mapping[str, Any]) -> dict[str, str]:
    where = ", ".join(f"{site}={address}" for site, address in side["dictionaries"].items())
    kept = {name: str(side[name]) for name in ("name", "run", "model")}
    return {**kept, "dictionaries": where, "adapter": side["fitted"] or side["adapter"]}
