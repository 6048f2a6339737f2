"""The report's figures: which numbers each one draws.

One definition per figure gives the interactive figure of the page and its files for a paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import altair as alt

from lorascope.measures.definitions import definition_of
from lorascope.report.charts import heatmap, intervals, null_rows, row_of
from lorascope.report.figure import HEATMAP_CAPTION, Figure, over_seeds_words
from lorascope.report.pooled import at_first_setting, conditions, group_labels
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.labels import (
    BASE,
    BASE_DIFFERENCE,
    BASE_SEEDS,
    DELTA,
    DELTA_SEEDS,
    DELTA_VS_BASE,
    Of,
)
from lorascope.studies.audit.sections.further_figures import further_figures
from lorascope.studies.audit.sections.topics import dictionary_order, topic_of


@dataclass(frozen=True)
class _Plan:
    """A figure before its numbers are known.

    Attributes:
        key: file name.
        draw: the kind of chart.
        measures: the measures it draws.
        title: what the figure shows.
        dictionaries: of which it draws; all when empty.
        reference: seed pair drawn across each site's panel.
    """

    key: str
    draw: Callable[[_Plan, Results], alt.TopLevelMixin | None]
    measures: tuple[str, ...]
    title: str
    dictionaries: tuple[Of, ...] = ()
    reference: Of | None = None


def figures(results: Results) -> Iterator[Figure]:
    """Describe every figure that has numbers, over all seeds, one after the other."""
    for plan in _PLANS:
        chart = plan.draw(plan, results)
        if chart is not None:
            yield _figure(plan, chart, results)
    yield from further_figures(results)


def _figure(plan: _Plan, chart: alt.TopLevelMixin, results: Results) -> Figure:
    unit = definition_of(plan.measures[0]).unit
    caption = HEATMAP_CAPTION if plan.draw is _heatmap else _interval_caption(plan, results)
    caption += over_seeds_words(_estimates(plan, results), results)
    topic = topic_of(plan.measures[0]).key
    return Figure.of(plan.key, topic, f"{plan.title} ({unit})", caption, chart)


def _interval_caption(plan: _Plan, results: Results) -> str:
    estimates = _estimates(plan, results)
    headline = dict.fromkeys(e.headline.name for e in estimates if e.headline is not None)
    further = dict.fromkeys(c.name for e in estimates for c in e.nulls if c is not e.headline)
    text = "Marks: value with 95 % interval."
    if headline:
        text += f" Grey: level and 95 % of chance ({', '.join(headline)})."
    if further:
        text += f" Thin dashes: {', '.join(further)}."
    if plan.reference and _references(plan, results):
        text += f" Dashed line: {plan.reference}, dictionaries of two seeds."
    return text


def _estimates(plan: _Plan, results: Results) -> list[Estimate]:
    found = [e for m in plan.measures for e in at_first_setting(conditions(results, m))]
    wanted = plan.dictionaries or tuple(Of.key(e.key) for e in found)
    return [e for e in found if Of.key(e.key) in wanted and math.isfinite(e.value)]


def _references(plan: _Plan, results: Results) -> list[Estimate]:
    if plan.reference is None:
        return []
    return at_first_setting(conditions(results, plan.measures[0], plan.reference))


def _heatmap(plan: _Plan, results: Results) -> alt.TopLevelMixin | None:
    estimates = _estimates(plan, results)
    labels, x_title = _labels(estimates, results)
    sites = [site for site in results.sites if any(e.key.site == site for e in estimates)]
    if len(labels) * len(sites) < 2:
        return None
    rows = [row_of(e, labels[e.key.adapter], str(Of.key(e.key))) for e in _ordered(estimates)]
    unit = estimates[0].unit
    return heatmap(rows, labels=list(labels.values()), sites=sites, x_title=x_title, unit=unit)


def _intervals(plan: _Plan, results: Results) -> alt.TopLevelMixin | None:
    estimates, references = _estimates(plan, results), _references(plan, results)
    if not estimates:
        return None
    labels, x_title = _labels(estimates, results)
    rows, nulls = [], []
    for estimate in _ordered(estimates):
        row = row_of(estimate, labels[estimate.key.adapter], _series(plan, estimate))
        rows.append(row)
        nulls.extend(null_rows(estimate, row))
    return intervals(
        rows,
        nulls,
        [row_of(reference, "", _series(plan, reference)) for reference in references],
        labels=list(labels.values()),
        sites=["", *results.sites],
        x_title=x_title,
        unit=estimates[0].unit,
        joined=x_title == _RANKED and len(labels) > 1,
    )


def _ordered(estimates: Sequence[Estimate]) -> list[Estimate]:
    order = dictionary_order(estimates)
    return sorted(estimates, key=lambda e: order.index(Of.key(e.key)))


def _series(plan: _Plan, estimate: Estimate) -> str:
    if len(plan.measures) == 1 and estimate.key.dictionary:
        return str(Of.key(estimate.key))
    return definition_of(estimate.measure).title.split(" (")[0].split(": ")[0]


def _labels(estimates: Sequence[Estimate], results: Results) -> tuple[dict[str, str], str]:
    """What the axis calls each group: its rank where every rank is known and differs."""
    labels = group_labels(estimates, results)
    ranked = all(text.isdigit() for text in labels.values())
    return labels, _RANKED if ranked else "adapter"


_RANKED: Final = "adapter rank"
_PAIR: Final = (DELTA_VS_BASE,)
_WITH_SEEDS: Final = (DELTA_VS_BASE, DELTA_SEEDS)
_BOTH: Final = (Of(DELTA), Of(BASE))

_PLANS: Final = (
    _Plan("response_loss", _intervals, ("response_loss",), "Held-out response loss"),
    _Plan("delta_norm", _heatmap, ("delta_norm",), "Delta norm"),
    _Plan("delta_norm_intervals", _intervals, ("delta_norm",), "Delta norm"),
    _Plan("delta_norm_relative", _heatmap, ("delta_norm.relative",), "Delta norm over base norm"),
    _Plan(
        "delta_norm_relative_intervals",
        _intervals,
        ("delta_norm.relative",),
        "Delta norm over base norm",
    ),
    _Plan("delta_rank_map", _heatmap, ("delta_rank",), "Effective rank of the delta"),
    _Plan("delta_rank", _intervals, ("delta_rank",), "Effective rank of the delta"),
    _Plan("relative_error", _heatmap, ("relative_error",), "Relative error by dictionary"),
    _Plan(
        "relative_error_intervals",
        _intervals,
        ("relative_error",),
        "Relative error of base and delta dictionary",
        (*_BOTH, Of(BASE_DIFFERENCE)),
    ),
    _Plan("improvement", _heatmap, ("improvement",), "Improvement of delta over base dictionary"),
    _Plan(
        "improvement_intervals",
        _intervals,
        ("improvement",),
        "Improvement against its chance level",
    ),
    _Plan("overlap_map", _heatmap, ("overlap",), "Overlap of active latents"),
    _Plan("overlap", _intervals, ("overlap",), "Overlap of active latents"),
    _Plan("density_map", _heatmap, ("density",), "Active latents on the delta"),
    _Plan("density", _intervals, ("density",), "Active latents on the delta"),
    _Plan("dead_share_map", _heatmap, ("dead_share",), "Dead latents", (Of(DELTA),)),
    _Plan("dead_share", _intervals, ("dead_share",), "Dead latents"),
    _Plan("max_cosine", _heatmap, ("max_cosine.mean",), "Mean max cosine, delta vs base", _PAIR),
    _Plan(
        "max_cosine_intervals",
        _intervals,
        ("max_cosine.mean",),
        "Mean max cosine against chance and seed pairs",
        _WITH_SEEDS,
        BASE_SEEDS,
    ),
    _Plan("angle", _heatmap, ("angle.mean",), "Mean principal angle, delta vs base", _PAIR),
    _Plan(
        "angle_intervals",
        _intervals,
        ("angle.mean",),
        "Mean principal angle against chance and seed pairs",
        _WITH_SEEDS,
        BASE_SEEDS,
    ),
    _Plan(
        "cka_base_delta_map",
        _heatmap,
        ("cka_debiased.base_delta",),
        "Debiased CKA of base stream and delta",
    ),
    _Plan(
        "cka_base_delta",
        _intervals,
        ("cka.base_delta", "cka_debiased.base_delta"),
        "CKA of base stream and delta",
    ),
    _Plan(
        "cka_base_adapted_map",
        _heatmap,
        ("cka_debiased.base_adapted",),
        "Debiased CKA of base and adapted stream",
    ),
    _Plan(
        "cka_base_adapted",
        _intervals,
        ("cka.base_adapted", "cka_debiased.base_adapted"),
        "CKA of base and adapted stream",
    ),
    _Plan(
        "pursuit_map",
        _heatmap,
        ("pursuit.relative_error",),
        "Relative error of k-sparse pursuit",
        _BOTH,
    ),
    _Plan(
        "pursuit",
        _intervals,
        ("pursuit.relative_error",),
        "Relative error of k-sparse pursuit",
    ),
    _Plan(
        "pursuit_gap_map",
        _heatmap,
        ("pursuit.gap",),
        "What the encoder leaves beyond pursuit",
    ),
    _Plan("pursuit_gap", _intervals, ("pursuit.gap",), "What the encoder leaves beyond pursuit"),
    _Plan("output_change", _intervals, ("output_change.kl",), "Change of the predictions, KL"),
    _Plan(
        "recovery_loss_map",
        _heatmap,
        ("recovery.loss",),
        "Recovery of the change of loss",
        _BOTH,
    ),
    _Plan("recovery_loss", _intervals, ("recovery.loss",), "Recovery of the change of loss"),
    _Plan(
        "recovery_kl_map",
        _heatmap,
        ("recovery.kl",),
        "Recovery of the change of predictions",
        _BOTH,
    ),
    _Plan("recovery_kl", _intervals, ("recovery.kl",), "Recovery of the change of predictions"),
    _Plan("latent_ablation_map", _heatmap, ("latent_ablation.kl",), "One latent removed, KL"),
    _Plan("latent_addition_map", _heatmap, ("latent_addition.kl",), "One latent added, KL"),
    _Plan(
        "latent_kl",
        _intervals,
        ("latent_ablation.kl", "latent_addition.kl"),
        "One latent removed or added, KL",
    ),
    _Plan(
        "latent_attributed_map",
        _heatmap,
        ("latent_ablation.loss_attributed",),
        "One latent removed, change of loss against attributed",
    ),
    _Plan(
        "latent_attributed",
        _intervals,
        ("latent_ablation.loss_attributed", "latent_addition.loss_attributed"),
        "Change of loss, observed against attributed",
    ),
    _Plan("weights_relative", _intervals, ("weights.relative",), "Update norm over weight norm"),
    _Plan("weights_rank", _intervals, ("weights.effective_rank",), "Effective rank of the update"),
    _Plan("intruders", _intervals, ("weights.intruders",), "Intruder dimensions"),
    _Plan(
        "written_map",
        _heatmap,
        ("weights.written_cosine",),
        "Max cosine of written directions with base directions",
    ),
    _Plan(
        "written",
        _intervals,
        ("weights.written_cosine",),
        "Max cosine of written directions with base directions",
    ),
)
