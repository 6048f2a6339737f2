"""The page of a latent study: the verdict, the frontier, the latents, and whether they matter.

Its texts come from models and behaviour sets and are not to be trusted: the template escapes them,
and data for the figures is JSON that cannot end its script element.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lorascope.measures.definitions import DEFINITIONS
from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.fact_tables import fact_tables
from lorascope.report.figure import Figure
from lorascope.report.figure_files import write_figures
from lorascope.report.formatting import (
    SYMBOLS,
    interval,
    number,
    shortened,
    shown_passage,
    shown_token,
    study_title,
)
from lorascope.report.latent_reading import (
    distinct,
    flags,
    pair_rows,
    pairs_csv,
    pairs_figure,
    readings,
    triple,
)
from lorascope.report.left_out import left_out_lines, of_how_many
from lorascope.report.markup import content_policy, embedded_json
from lorascope.report.placing import further
from lorascope.report.rendering import asset, rendered, vega_script
from lorascope.report.result import Results
from lorascope.report.tables import table_row
from lorascope.results import Estimate, Key
from lorascope.results.null_names import UNTOUCHED
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text
from lorascope.studies.latent.sections.figures import flatness_figure, frontier_figure
from lorascope.studies.latent.sections.words import verdicts

_RATES = ("behaviour.success", "behaviour.false_positives", "behaviour.right")
_LOSS = "behaviour.general_loss"


def write_page(results: Results) -> Path:
    """Write `report/` of a latent study and return the page's path."""
    folder = results.run / "report"
    drawn = figures_of(results)
    write_figures(drawn, folder / "figures")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    table = results.numbers.to_frame()
    write_atomically(folder / "tables" / "latent.csv", csv_text(table))
    write_atomically(folder / "tables" / "pairs.csv", pairs_csv(results.facts))
    page = folder / "index.html"
    write_atomically(page, render(results, drawn))
    return page


def figures_of(results: Results) -> list[Figure]:
    """The frontier of success against latents, and how flat their weights are."""
    facts = results.facts
    drawn = (frontier_figure(results.numbers, facts), flatness_figure(facts), pairs_figure(facts))
    return [figure for figure in drawn if figure is not None]


def render(results: Results, drawn: Sequence[Figure]) -> str:
    """The page's HTML."""
    facts, numbers = results.facts, list(results.numbers)
    pooled = [e for e in numbers if e.key.seed is None] if len(facts["seeds"]) > 1 else numbers
    measures = dict.fromkeys(e.measure for e in numbers)
    scripts = [vega_script(), asset("script.js"), asset("copying.js")]
    return rendered(
        "latent.html.j2",
        facts=facts,
        title=study_title(
            facts["settings"],
            f"{facts['behaviour']['manner']} in latents of {shortened(facts['model']['id'])}",
        ),
        examples=_examples(facts),
        cautions=[*flags(facts), *left_out_lines(facts), *facts["warnings"]],
        said=[*verdicts(numbers, facts), *readings(numbers, facts)],
        triple=triple(facts),
        distinct=distinct(facts),
        pairs=pair_rows(facts),
        rates=_rates(pooled),
        sparsity=_sparsity(pooled, facts),
        figures={figure.key: figure for figure in drawn},
        scripts=scripts,
        policy=content_policy(*scripts),
        config=json.dumps(EXPORT_CONFIG),
        specs=Markup(embedded_json({figure.key: figure.spec for figure in drawn})),
        ablation=[table_row(e) for e in _ablated(numbers) if e.measure in _ABLATION],
        latents=facts["latents"],
        number=_printed,
        shown_token=shown_token,
        shown_passage=shown_passage,
        rows=[(table_row(estimate), further(estimate.key)) for estimate in numbers],
        definitions=[(m, DEFINITIONS[m]) for m in measures if m in DEFINITIONS],
        fact_tables=fact_tables(
            {key: facts[key] for key in ("model", "versions", "left_out") if key in facts}
        ),
        settings=json.dumps(facts["settings"], indent=2, ensure_ascii=False),
        style=asset("style.css", "comparison.css", "latent.css"),
    )


_ABLATION = ("latent.ablation", "latent.mattering", "latent.left")


def _examples(facts: Mapping[str, Any]) -> str:
    """Training examples used, and how many there were."""
    told = (
        f"{facts['behaviour'][f'train {kind}']:,}"
        f"{of_how_many(facts, f'train {kind} records')} {kind}"
        for kind in ("changed", "unchanged")
    )
    return f"{' and '.join(told)} training examples"


def _ablated(numbers: Sequence[Estimate]) -> list[Estimate]:
    """Means over seeds where latents were taken away under several, else the one seed's."""
    found = [e for e in numbers if e.measure in _ABLATION]
    return [e for e in found if e.key.seed is None] or found


def _rates(numbers: Sequence[Estimate]) -> list[dict[str, Any]]:
    """A row for everything that answered: success, false positives, right answers, general loss."""
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    near: dict[str, Estimate] = {}
    for e in numbers:
        if e.measure not in (*_RATES, _LOSS):
            continue
        if e.key.topic:
            near[e.key.adapter] = e
            continue
        row = found.setdefault((e.key.adapter, e.key.size), {})
        row[e.measure] = e
    rows = [_untouched(numbers)]
    for (adapter, size), estimates in found.items():
        cells = [_cell(estimates.get(measure)) for measure in (*_RATES[:2],)]
        cells.append(_cell(near.get(adapter)))
        cells += [_cell(estimates.get(measure)) for measure in (_RATES[2], _LOSS)]
        rows.append({"name": adapter, "place": further(Key(size=size)), "cells": cells})
    return rows


def _untouched(numbers: Sequence[Estimate]) -> dict[str, Any]:
    """What the untouched model does: the chance level of the others."""
    cells = []
    for wanted in (_RATES[0], _RATES[1], None, _RATES[2], _LOSS):
        of = next((e for e in numbers if e.measure == wanted), None)
        level = math.nan if of is None else of.nulls[0].level
        cells.append({"value": number(level), "interval": ""} if of else _cell(None))
    return {"name": UNTOUCHED, "place": "", "cells": cells}


def _cell(estimate: Estimate | None) -> dict[str, str]:
    if estimate is None:
        return {"value": "–", "interval": ""}
    sign = SYMBOLS[estimate.verdict]
    around = f"{interval(*estimate.interval)} {sign}".strip()
    return {"value": number(estimate.value), "interval": around}


def _sparsity(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a choice: latents used, effective numbers, largest entries, overlap over seeds."""
    rows = []
    for choice in facts["choices"]:
        cells: list[dict[str, str]] = []
        for measure in ("latent.used", "latent.effective", "latent.largest", "latent.overlap"):
            for side in ("read", "written"):
                found = [
                    e
                    for e in numbers
                    if e.measure == measure and e.key.adapter == choice and e.key.dictionary == side
                ]
                cell = _cell(found[0] if found else None)
                cells.append({**cell, "chance": number(found[0].chance) if found else "–"})
        rows.append({"name": choice, "loss": number(facts["losses"][choice]), "cells": cells})
    return rows


def _printed(value: float | None) -> str:
    return "–" if value is None else number(float(value))
