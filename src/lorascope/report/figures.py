"""The report's figures: which numbers each one draws, and the files made from it.

One definition per figure gives the interactive figure of the page and its SVG and PNG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import altair as alt
import vl_convert

from lorascope.estimates import Estimate
from lorascope.report.charts import EXPORT_CONFIG, heatmap, intervals, null_rows, row_of
from lorascope.report.conditions import measured, seeds
from lorascope.report.result import Results
from lorascope.report.topics import definition_of, dictionary_order, topic_of

VEGA_LITE_VERSION: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        key: its file name.
        topic: key of the section it stands in.
        title: what it shows, with the unit.
        caption: how to read it.
        spec: Vega-Lite specification, data included.
    """

    key: str
    topic: str
    title: str
    caption: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class _Plan:
    """A figure before its numbers are known.

    Attributes:
        key: file name.
        draw: the kind of chart.
        measures: the measures it draws.
        title: what the figure shows.
        dictionaries: the labels it draws; all when empty.
        reference: label drawn across each site's panel.
    """

    key: str
    draw: Callable[[_Plan, Results], alt.TopLevelMixin | None]
    measures: tuple[str, ...]
    title: str
    dictionaries: tuple[str, ...] = ()
    reference: str = ""


def figures(results: Results) -> list[Figure]:
    """Draw every figure that has numbers, at the lowest seed."""
    drawn = ((plan, plan.draw(plan, results)) for plan in _PLANS)
    return [_figure(plan, chart, results) for plan, chart in drawn if chart is not None]


def write_figures(drawn: Sequence[Figure], folder: Path) -> None:
    """Write `<key>.svg` and `<key>.png` on white, in a light theme."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        spec = {**figure.spec, "config": EXPORT_CONFIG, "title": figure.title}
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE_VERSION)
        (folder / f"{figure.key}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{figure.key}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))


def _figure(plan: _Plan, chart: alt.TopLevelMixin, results: Results) -> Figure:
    spec = chart.to_dict()
    spec.pop("config", None)
    unit = definition_of(plan.measures[0]).unit
    runs = seeds(results)
    seeded = f" Seed {runs[0]}; the tables list every seed." if len(runs) > 1 else ""
    caption = _HEATMAP_CAPTION if plan.draw is _heatmap else _interval_caption(plan, results)
    return Figure(
        key=plan.key,
        topic=topic_of(plan.measures[0]).key,
        title=f"{plan.title} ({unit})",
        caption=caption + seeded,
        spec=spec,
    )


_HEATMAP_CAPTION: Final = (
    "Colour and upper line: the number and its verdict (▲ above, ▼ below, = at chance). Lower "
    "line: the chance level it stands against."
)


def _interval_caption(plan: _Plan, results: Results) -> str:
    estimates = _estimates(plan, results)
    headline = dict.fromkeys(e.chances[0].null for e in estimates if e.chances)
    further = dict.fromkeys(c.null for e in estimates for c in e.chances[1:])
    text = "Marks: value with 95 % interval."
    if headline:
        text += f" Grey: level and 95 % of chance ({', '.join(headline)})."
    if further:
        text += f" Thin dashes: {', '.join(further)}."
    if plan.reference and _references(plan, results):
        text += f" Dashed line: {plan.reference}, dictionaries of two seeds."
    return text


def _estimates(plan: _Plan, results: Results) -> list[Estimate]:
    found = [e for m in plan.measures for e in measured(results, m, first_seed=True)]
    wanted = plan.dictionaries or tuple(dict.fromkeys(e.place.dictionary for e in found))
    return [e for e in found if e.place.dictionary in wanted]


def _references(plan: _Plan, results: Results) -> list[Estimate]:
    if not plan.reference:
        return []
    return measured(results, plan.measures[0], plan.reference, first_seed=True)


def _heatmap(plan: _Plan, results: Results) -> alt.TopLevelMixin | None:
    estimates = _estimates(plan, results)
    labels, x_title = _labels(estimates, results)
    sites = [site for site in results.sites if any(e.place.site == site for e in estimates)]
    if len(labels) * len(sites) < 2:
        return None
    order = dictionary_order(e.place.dictionary for e in estimates)
    rows = [
        row_of(e, labels[e.place.adapter], e.place.dictionary)
        for e in sorted(estimates, key=lambda e: order.index(e.place.dictionary))
    ]
    unit = estimates[0].unit
    return heatmap(rows, labels=list(labels.values()), sites=sites, x_title=x_title, unit=unit)


def _intervals(plan: _Plan, results: Results) -> alt.TopLevelMixin | None:
    estimates, references = _estimates(plan, results), _references(plan, results)
    if not estimates:
        return None
    labels, x_title = _labels(estimates, results)
    order = dictionary_order(e.place.dictionary for e in estimates)
    rows, nulls = [], []
    for estimate in sorted(estimates, key=lambda e: order.index(e.place.dictionary)):
        row = row_of(estimate, labels[estimate.place.adapter], _series(estimate))
        rows.append(row)
        nulls.extend(null_rows(estimate, row))
    return intervals(
        rows,
        nulls,
        [row_of(reference, "", _series(reference)) for reference in references],
        labels=list(labels.values()),
        sites=["", *results.sites],
        x_title=x_title,
        unit=estimates[0].unit,
    )


def _series(estimate: Estimate) -> str:
    title = definition_of(estimate.measure).title.split(" (")[0]
    return estimate.place.dictionary or title


def _labels(estimates: Sequence[Estimate], results: Results) -> tuple[dict[str, str], str]:
    """What the axis calls each adapter: its rank where every rank is known and differs."""
    ranks = {e.place.adapter: e.place.rank for e in estimates if e.place.rank is not None}
    present = [a for a in results.adapters if any(e.place.adapter == a for e in estimates)]
    if len(present) == len(set(ranks.values())) == len(ranks):
        ordered = sorted(present, key=ranks.__getitem__)
        return {adapter: str(ranks[adapter]) for adapter in ordered}, "adapter rank"
    return {adapter: adapter for adapter in present}, "adapter"


_PAIR: Final = ("delta vs base",)
_WITH_SEEDS: Final = ("delta vs base", "delta vs delta")

_PLANS: Final = (
    _Plan("response_loss", _intervals, ("response_loss",), "Held-out response loss"),
    _Plan("delta_norm", _heatmap, ("delta_norm",), "Delta norm"),
    _Plan("delta_norm_relative", _heatmap, ("delta_norm.relative",), "Delta norm over base norm"),
    _Plan("delta_rank", _intervals, ("delta_rank",), "Effective rank of the delta"),
    _Plan("relative_error", _heatmap, ("relative_error",), "Relative error by dictionary"),
    _Plan("improvement", _heatmap, ("improvement",), "Improvement of delta over base dictionary"),
    _Plan(
        "improvement_intervals",
        _intervals,
        ("improvement",),
        "Improvement against its chance level",
    ),
    _Plan("overlap", _intervals, ("overlap",), "Overlap of active latents"),
    _Plan("density", _intervals, ("density",), "Active latents on the delta"),
    _Plan("dead_share", _intervals, ("dead_share",), "Dead latents"),
    _Plan("max_cosine", _heatmap, ("max_cosine.mean",), "Mean max cosine, delta vs base", _PAIR),
    _Plan(
        "max_cosine_intervals",
        _intervals,
        ("max_cosine.mean",),
        "Mean max cosine against chance and seed pairs",
        _WITH_SEEDS,
        "base vs base",
    ),
    _Plan("angle", _heatmap, ("angle.mean",), "Mean principal angle, delta vs base", _PAIR),
    _Plan(
        "angle_intervals",
        _intervals,
        ("angle.mean",),
        "Mean principal angle against chance and seed pairs",
        _WITH_SEEDS,
        "base vs base",
    ),
    _Plan(
        "cka_base_delta",
        _intervals,
        ("cka.base_delta", "cka_debiased.base_delta"),
        "CKA of base stream and delta",
    ),
    _Plan(
        "cka_base_adapted",
        _intervals,
        ("cka.base_adapted", "cka_debiased.base_adapted"),
        "CKA of base and adapted stream",
    ),
)
