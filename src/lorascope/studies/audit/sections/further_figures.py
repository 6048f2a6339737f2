"""Figures of their own kind: lines over depth, epochs, sparsity and k; the paper's summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import altair as alt

from lorascope.measures.definitions import definition_of
from lorascope.report.charts import SERIES_COLOURS, Row, heatmap, lines, row_of
from lorascope.report.figure import HEATMAP_CAPTION, Figure, over_seeds_words
from lorascope.report.pooled import at_first_setting, conditions, group_labels
from lorascope.report.result import Results
from lorascope.results.labels import DELTA, DELTA_VS_BASE, Of

_LINES: Final = "Lines: values with 95 % intervals. Grey: level and 95 % of chance."


def further_figures(results: Results) -> Iterator[Figure]:
    """Those that the run has numbers for."""
    for draw in _DRAWERS:
        yield from draw(results)


def _density(results: Results) -> Iterator[Figure]:
    """Figure 4: by depth, a line a rank; by rank, a line a site."""
    found = at_first_setting(conditions(results, "density", Of(DELTA)))
    labels = group_labels(found, results)
    if len(found) < 2:
        return
    by_depth = [
        row_of(e, e.key.site, labels[e.key.adapter]) for e in found if e.key.adapter in labels
    ]
    by_rank = [{**row, "label": row["series"], "series": row["label"]} for row in by_depth]
    unit = definition_of("density").unit
    seeded = over_seeds_words(found, results)
    for key, rows, order, x, title in (
        ("density_by_depth", by_depth, results.sites, "site", "Active delta latents by depth"),
        (
            "density_by_rank",
            by_rank,
            list(labels.values()),
            "adapter",
            "Active delta latents by rank",
        ),
    ):
        chart = lines(rows, order=order, x_title=x, unit=unit)
        yield Figure.of(key, "firing", f"{title} ({unit})", _LINES + seeded, chart)


def _angles_by_k(results: Results) -> Iterator[Figure]:
    """Section 6.3: mean angle against the dimension of the subspaces."""
    every = conditions(results, "angle.mean", DELTA_VS_BASE)
    found = [(e, e.key.k) for e in every if e.key.k is not None]
    sizes = sorted({k for _, k in found})
    if len(sizes) < 2:
        return
    labels = group_labels([e for e, _ in found], results)
    rows = [{**row_of(e, str(k), labels[e.key.adapter]), "site": e.key.site} for e, k in found]
    chart = lines(
        rows,
        order=[str(k) for k in sizes],
        x_title="dimensions k",
        unit="degrees",
        panels=results.sites,
    )
    caption = _LINES + over_seeds_words([e for e, _ in found], results)
    yield Figure.of(
        "angle_by_k",
        "angles",
        "Mean principal angle by subspace dimension (degrees)",
        caption,
        chart,
    )


def _learning(results: Results) -> Iterator[Figure]:
    """Section 6.2: held-out error against epochs."""
    rows: list[Row] = []
    for fact in results.facts.get("dictionaries") or []:
        points = fact.get("held_out_error") or []
        if fact.get("setting") or fact.get("target") != "delta" or not points:
            continue
        steps, epochs = fact["steps"], fact["epochs"]
        rows += [
            {
                "adapter": fact["adapter"],
                "site": fact["site"],
                "dictionary": f"{fact['adapter']}, seed {fact['seed']}",
                "epoch": epochs * point["step"] / steps,
                "error": point["error"],
            }
            for point in points
        ]
    if not rows:
        return
    names = list(dict.fromkeys(row["adapter"] for row in rows))
    chart = (
        alt.Chart()
        .mark_line(point=True, strokeWidth=1.4)
        .encode(
            x=alt.X("epoch:Q", title="epochs"),
            y=alt.Y("error:Q", title="relative error", scale=alt.Scale(zero=False)),
            color=_colours("adapter", names),
            detail="dictionary:N",
            tooltip=[
                alt.Tooltip("dictionary:N"),
                alt.Tooltip("site:N"),
                alt.Tooltip("epoch:Q", format=".2~f"),
                alt.Tooltip("error:Q", format=".4~g"),
            ],
        )
        .properties(width=240, height=190)
        .facet(data=alt.Data(values=tuple(rows)), facet=alt.Facet("site:N", title=None), columns=3)
    )
    caption = "Relative error of each delta dictionary on held-out deltas after every epoch."
    yield Figure.of(
        "error_by_epoch", "reconstruction", "Held-out error by epoch (ratio)", caption, chart
    )


def _ablation(results: Results) -> Iterator[Figure]:
    """Table 12 as a curve: error against L0."""
    error = {e.key.setting: e for e in results.numbers.taken("ablation.relative_error")}
    density = {e.key.setting: e for e in results.numbers.taken("ablation.density")}
    rows = [
        {
            "setting": setting,
            "l0": density[setting].value,
            "error": e.value,
            "low": e.interval[0],
            "high": e.interval[1],
            "chance": e.chance,
        }
        for setting, e in error.items()
        if setting in density and not math.isnan(e.value)
    ]
    if len(rows) < 2:
        return
    base = alt.Chart().encode(
        x=alt.X("l0:Q", title="active latents per token", scale=alt.Scale(type="log"))
    )
    y = alt.Y("error:Q", title="relative error", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("setting:N"),
        *(alt.Tooltip(f"{c}:Q", format=".4~g") for c in ("l0", "error", "low", "high", "chance")),
    ]
    colour = alt.value(SERIES_COLOURS[0])
    chart = alt.layer(
        base.mark_line(strokeWidth=1.4).encode(y=y, color=colour),
        base.mark_rule().encode(
            y=alt.Y("low:Q", title="relative error"), y2="high:Q", color=colour
        ),
        base.mark_point(filled=True, size=60).encode(y=y, color=colour, tooltip=tooltip),
        base.mark_text(dx=8, dy=-9, align="left", fontSize=10).encode(y=y, text="setting:N"),
        data=alt.Data(values=tuple(rows)),
    ).properties(width=420, height=240)
    caption = (
        "One condition trained at several sparsities; marks: held-out error with 95 % interval."
    )
    yield Figure.of("ablation", "ablation", "Error against active latents (ratio)", caption, chart)


_PANELS: Final = (
    ("delta_norm", None, "A. Delta norm"),
    ("improvement", Of(DELTA), "B. Improvement over the base dictionary"),
    ("density", Of(DELTA), "C. Active delta latents"),
    ("weakly_aligned", None, "D. Weakly aligned share"),
)


def _summary(results: Results) -> Iterator[Figure]:
    """Figure 7: four panels."""
    charts, used = [], []
    for measure, of, title in _PANELS:
        found = at_first_setting(conditions(results, measure, of))
        labels = group_labels(found, results)
        sites = [site for site in results.sites if any(e.key.site == site for e in found)]
        if len(labels) * len(sites) < 2:
            continue
        rows: list[dict[str, Any]] = [row_of(e, labels[e.key.adapter], "") for e in found]
        chart = heatmap(
            rows, labels=list(labels.values()), sites=sites, x_title="adapter", unit=found[0].unit
        )
        charts.append(chart.properties(title=title))
        used += found
    if len(charts) < 2:
        return
    together = alt.concat(*charts, columns=2).resolve_scale(color="independent")
    caption = HEATMAP_CAPTION + over_seeds_words(used, results)
    yield Figure.of("summary", "summary", "Summary over layers and ranks", caption, together)


def _colours(column: str, names: Sequence[str]) -> alt.Color:
    colours = [SERIES_COLOURS[i % len(SERIES_COLOURS)] for i in range(len(names))]
    scale = alt.Scale(domain=list(names), range=colours)
    return alt.Color(f"{column}:N", title=None, scale=scale, legend=alt.Legend(orient="top"))


_DRAWERS: Final[tuple[Callable[[Results], Iterator[Figure]], ...]] = (
    _summary,
    _density,
    _angles_by_k,
    _learning,
    _ablation,
)
