"""The figures of an adapt report: which numbers each draws, chance levels in the same picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import altair as alt

from lorascope.measures.adapting import ORIGINAL
from lorascope.models.sites import parse_site
from lorascope.report.charts import Row, intervals, lines, null_rows, row_of
from lorascope.report.conditions import bounds
from lorascope.report.figure import Figure
from lorascope.report.formatting import number
from lorascope.report.placing import further
from lorascope.results import Estimate
from lorascope.results.null_names import NOTHING_FITTED, RANDOM_CHANGE, UNADAPTED, UNIGRAM
from lorascope.studies.adapt.sections.charts import curves, histogram
from lorascope.studies.adapt.sections.further import losses, steered_texts
from lorascope.studies.adapt.sections.reported import CLOSED, NEXT, marked
from lorascope.studies.adapt.sections.results import (
    COST_AFTER,
    SHARE,
    AdaptResults,
    FitCondition,
    axis,
    level_under,
)

_MOST_LINES = 4
PAPER_CLOSES = "paper: 30–55 % on Gemma"
_AXES = {
    "l0": ("active latents a token (L0)", "Over sparsity"),
    "n_latents": ("latents", "Over width"),
    "block": ("block of the site", "Over depth"),
}


def adapt_figures(found: AdaptResults) -> list[Figure]:
    """Draw every figure that has numbers."""
    return [figure for make in _MAKERS for figure in make(found)]


def _figure(key: str, topic: str, title: str, caption: str, chart: alt.TopLevelMixin) -> Figure:
    return Figure.of(key, topic, title, caption, chart)


def _seeds(found: AdaptResults, condition: FitCondition) -> str:
    """What a caption says of seeds."""
    count = len(found.fits(condition))
    if count < 2:
        return " Intervals over documents."
    return f" Means over {count} seeds, intervals over documents and seeds."


def _baselines(found: AdaptResults) -> Iterator[Figure]:
    pairs = [(c, found.number(c, SHARE)) for c in found.conditions("baselines")]
    taken = [(c, e) for c, e in pairs if e is not None]
    if not taken:
        return
    rows, nulls = [], []
    for condition, estimate in taken:
        row = row_of(estimate, condition.fitted, "fitted") | {"site": ""}
        rows.append(row)
        nulls += null_rows(estimate, row)
    chart = intervals(
        rows,
        nulls,
        [],
        labels=[condition.fitted for condition, _ in taken],
        sites=[""],
        x_title="",
        unit="share of the splice's cost recovered",
    )
    caption = (
        f"Everything is fitted around {found.reference} with the same budget of tokens. Grey: what "
        "a random change of equal size does, and nothing (0)." + _seeds(found, taken[0][0])
    )
    title = "Share of the splice's cost recovered, by what is fitted"
    drawn = _figure("baselines_share", "baselines", title, caption, chart)
    yield marked(drawn, *CLOSED, PAPER_CLOSES, "share of the splice's cost recovered")


def _scaling(found: AdaptResults) -> Iterator[Figure]:
    conditions = found.conditions("scaling")
    for field, (x_title, title) in _AXES.items():
        places = _lined(axis(found, conditions, field), lambda c: c.rank)
        if not places:
            continue
        for measure, unit, key in (
            (SHARE, "loss recovered", "share"),
            (COST_AFTER, "nats/token", "cost"),
        ):
            rows = list(_ranked(found, places, measure))
            if not rows:
                continue
            order = list(dict.fromkeys(row["label"] for row in rows))
            chart = lines(rows, order=order, x_title=x_title, unit=unit)
            what = "share of the cost closed" if key == "share" else "cost of the splice, adapted"
            chance = NOTHING_FITTED if key == "share" else UNADAPTED
            caption = (
                f"A line for each rank; dictionaries otherwise like {found.reference}. Grey: "
                f"{chance}, or a random change of equal size where that is nearer."
                + _seeds(found, places[0][1])
            )
            drawn = _figure(f"scaling_{field}_{key}", "scaling", f"{title}: {what}", caption, chart)
            yield marked(drawn, *CLOSED, PAPER_CLOSES, unit) if key == "share" else drawn
    yield from _ranks(found, conditions)


def _ranks(found: AdaptResults, conditions: Sequence[FitCondition]) -> Iterator[Figure]:
    ranks = sorted({condition.rank or 0 for condition in conditions})
    if len(ranks) < 2:
        return
    # As many lines as can be told apart.
    lined = _lined([(c.rank or 0, c) for c in conditions], lambda c: c.around)
    every = list(dict.fromkeys(c.around for _, c in lined))
    named = [c.around for _, c in axis(found, conditions, "l0") if c.around in every] or every
    kept = list(dict.fromkeys(named))[:_MOST_LINES]
    rows = []
    chosen = [condition for condition in conditions if condition.around in kept]
    for condition in sorted(chosen, key=lambda c: (kept.index(c.around), c.rank or 0)):
        estimate = found.number(condition, SHARE)
        if estimate is not None:
            rows.append(row_of(estimate, str(condition.rank), condition.around) | {"site": ""})
    if not rows:
        return
    chart = lines(rows, order=[str(rank) for rank in ranks], x_title="rank", unit="loss recovered")
    caption = (
        "A line for each dictionary. Grey: nothing fitted, or a random change of equal size where "
        "that is nearer." + _seeds(found, conditions[0])
    )
    title = "Over rank: share of the cost closed"
    drawn = _figure("scaling_rank_share", "scaling", title, caption, chart)
    yield marked(drawn, *CLOSED, PAPER_CLOSES, "loss recovered")


def _lined(
    places: Sequence[tuple[float, FitCondition]], line: Callable[[FitCondition], object]
) -> list[tuple[float, FitCondition]]:
    """Those whose line has more than one place."""
    at: dict[object, set[float]] = {}
    for value, condition in places:
        at.setdefault(line(condition), set()).add(value)
    return [(value, c) for value, c in places if len(at[line(c)]) > 1]


def _ranked(
    found: AdaptResults, places: Sequence[tuple[float, FitCondition]], measure: str
) -> Iterator[Row]:
    for value, condition in places:
        estimate = found.number(condition, measure)
        if estimate is not None:
            label = number(value) if value % 1 else f"{value:,.0f}"
            yield row_of(estimate, label, f"rank {condition.rank}") | {"site": ""}


def _times(found: AdaptResults) -> Iterator[Figure]:
    drawn = found.facts.get("times", {})
    rows = [
        {"x": point["seconds"], "value": point["loss"], "series": name, **_span(point)}
        for name, points in drawn.items()
        for point in points
    ]
    if not rows:
        return
    condition = found.main
    levels: list[Row] = []
    original = found.number(condition, "adapt.loss_original") if condition else None
    if original is not None:
        levels.append({"value": original.value, "series": "original model", "low": None})
    chart = curves(
        rows,
        levels,
        x_title="training time, seconds",
        y_title="cross-entropy, nats/token",
        log_x=True,
    )
    caption = (
        "Each point is a dictionary after a share of its training, spliced; TopK + LoRA adds the "
        "time of the fit to that of the dictionary. Intervals over documents."
    )
    title = "Cross-entropy against training time"
    yield _figure("times", "times", title, caption, chart)


def _several(found: AdaptResults) -> Iterator[Figure]:
    conditions = found.conditions("several")
    measures = {
        "spliced": "adapt.loss_spliced",
        "spliced + LoRA": "adapt.loss_adapted",
    }
    rows = []
    for name, measure in measures.items():
        for condition in conditions:
            estimate = found.number(condition, measure)
            if estimate is not None:
                rows.append(_row(estimate, float(len(condition.sites)), name))
    if not rows:
        return
    first = found.number(conditions[0], "adapt.loss_adapted")
    levels: list[Row] = []
    for null, name in ((ORIGINAL, "original model"), (UNIGRAM, UNIGRAM)):
        level = level_under(first, null) if first else None
        if level is not None:
            levels.append({"value": level, "series": name})
    chart = curves(
        rows,
        levels,
        x_title="dictionaries spliced at once",
        y_title="compound cross-entropy, nats/token",
        whole=True,
    )
    caption = "All dictionaries of a set are spliced together." + _seeds(found, conditions[0])
    title = "Several dictionaries at once"
    yield _figure("several", "several", title, caption, chart)


def _tokens(found: AdaptResults) -> Iterator[Figure]:
    if found.main is None or not found.conditions("reference"):
        return
    fits = [fit for fit in found.fits(found.main) if fit.get("changes")]
    if not fits:
        return
    edges = fits[0]["changes"]["edges"]
    rows = []
    for name, field in (("get better", "better"), ("get worse", "worse")):
        counts = [sum(fit["changes"][field][i] for fit in fits) for i in range(len(edges) - 1)]
        rows += [
            {"low": low, "high": high, "count": count / len(fits), "series": name}
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ]
    chart = histogram(rows, x_title="|change of −log p|, nats", y_title="held-out tokens")
    caption = (
        f"Tokens by how far {found.main.fitted} moves their −log p from the spliced model's. "
        "Were it chance, both would be alike. Changes beyond the edges stand in the outermost bins."
    )
    title = "Single tokens, better and worse"
    yield _figure("tokens", "tokens", title, caption, chart)


def _streams(found: AdaptResults) -> Iterator[Figure]:
    for measure, title, unit in (
        ("adapt.distance", "Distance from the original's stream, ‖x − x₀‖/‖x₀‖", "ratio"),
        ("adapt.euclidean", "Euclidean distance from the original's stream", "‖x − x₀‖"),
        ("adapt.cosine", "Cosine with the original's stream", "cosine"),
    ):
        rows = []
        for estimate in found.all_of(measure):
            block = float(parse_site(estimate.key.site).index)
            rows.append(_row(estimate, block, "spliced + LoRA"))
            rows += [
                {"x": block, "value": c.level, "low": c.low, "high": c.high, "series": c.name}
                for c in estimate.nulls
            ]
        if not rows:
            continue
        chart = curves(rows, x_title="block", y_title=unit, whole=True)
        caption = (
            "From the spliced site on, where the distance is the dictionary's own error. Streams "
            "of other tokens are the chance level."
        )
        yield _figure(measure.replace(".", "_"), "streams", title, caption, chart)


def _single(found: AdaptResults) -> Iterator[Figure]:
    conditions = found.conditions("single")
    rows = []
    for distance, condition in enumerate(conditions, start=1):
        estimate = found.number(condition, SHARE)
        if estimate is not None:
            rows.append(_row(estimate, float(distance), "LoRA on one block"))
    if not rows:
        return
    levels: list[Row] = []
    whole = found.number(found.main, SHARE) if found.main else None
    if whole is not None and found.main is not None:
        levels.append({"value": whole.value, "series": found.main.fitted})
    nothing = found.number(conditions[0], SHARE)
    level = level_under(nothing, RANDOM_CHANGE) if nothing else None
    if level is not None:
        levels.append({"value": level, "series": RANDOM_CHANGE})
    chart = curves(
        rows, levels, x_title="blocks behind the site", y_title="loss recovered", whole=True
    )
    caption = "LoRA on a single block, by its distance." + _seeds(found, conditions[0])
    title = "One block alone"
    drawn = _figure("single_blocks", "single", title, caption, chart)
    if whole is not None:
        level = NEXT * whole.value
        drawn = marked(drawn, level, level, "paper: 88 % of all blocks", "loss recovered")
    yield drawn


def _steering(found: AdaptResults) -> Iterator[Figure]:
    rows, nulls = [], []
    for name in ("positive", "negative"):
        for estimate in found.all_of(f"steering.change_{name}"):
            row = row_of(estimate, further(estimate.key), f"{name} texts") | {"site": ""}
            rows.append(row)
            nulls += null_rows(estimate, row)
    if not rows:
        return
    chart = intervals(
        rows,
        nulls,
        [],
        labels=list(dict.fromkeys(row["label"] for row in rows)),
        sites=[""],
        x_title="",
        unit="points",
    )
    caption = (
        "What LoRA adds to the effect of steering on test texts: above 0 on positive texts and not "
        "on negative ones is better. Grey: random directions that move the stream as far."
    )
    title = "Steering: change of mean log p with LoRA less that without"
    yield _figure("steering", "steering", title, caption, chart)


def _row(estimate: Estimate, x: float, series: str) -> Row:
    low, high = bounds(estimate)
    return {"x": x, "value": estimate.value, "low": low, "high": high, "series": series}


def _span(point: dict[str, Any]) -> dict[str, Any]:
    return {"low": point["low"], "high": point["high"]}


_MAKERS: tuple[Callable[[AdaptResults], Iterator[Figure]], ...] = (
    losses,
    _baselines,
    _scaling,
    _times,
    _several,
    _tokens,
    _streams,
    _single,
    _steering,
    steered_texts,
)
