"""Charts of an adapt report that have numbers on both axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from lorascope.report.charts import CHANCE_COLOUR, SERIES_COLOURS, Row

_DASHES = ([5, 3], [1, 3], [9, 3])
_SHAPES = ("circle", "square", "diamond", "triangle-up")


def curves(
    rows: Sequence[Row],
    levels: Sequence[Row] = (),
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    whole: bool = False,
) -> alt.TopLevelMixin:
    """Values with 95 % intervals over a number, a line for each series.

    Args:
        rows: x, value, low, high, series; further fields go into the tooltip.
        levels: value and series of lines across the whole chart: references and chance levels.
        whole: the axis has whole numbers alone.
    """
    names = list(dict.fromkeys(row["series"] for row in rows))
    references = list(dict.fromkeys(row["series"] for row in levels))
    domain = [*names, *references]
    colours = [SERIES_COLOURS[i % len(SERIES_COLOURS)] for i in range(len(names))]
    colours += [CHANCE_COLOUR] * len(references)
    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(len(names))] + ["stroke"] * len(references)
    legend = alt.Legend(orient="top", symbolOpacity=1, labelLimit=320)
    scale = alt.Scale(domain=domain, range=colours)
    colour = alt.Color("series:N", title=None, scale=scale, legend=legend)
    shape = alt.Shape(
        "series:N", title=None, scale=alt.Scale(domain=domain, range=shapes), legend=legend
    )
    # References share one grey: their dashes tell them apart, in the legend too.
    dashes = [[1, 0]] * len(names) + [_DASHES[i % len(_DASHES)] for i in range(len(references))]
    dash = alt.StrokeDash(
        "series:N", title=None, scale=alt.Scale(domain=domain, range=dashes), legend=legend
    )
    kind = alt.Scale(type="log") if log_x else alt.Scale(zero=False, nice=not whole)
    ticks = sorted({row["x"] for row in rows})
    axis = alt.Axis(values=ticks, format="d") if whole else alt.Axis()
    x = alt.X("x:Q", title=x_title, scale=kind, axis=axis)
    data = [*({**row, "kind": "value"} for row in rows)]
    data += [{**row, "kind": "level"} for row in levels]
    base = alt.Chart().transform_filter("datum.kind === 'value'").encode(x=x, tooltip=_tooltip())
    layers = [
        base.mark_line(strokeWidth=1.6).encode(y=_y("value", y_title), color=colour),
        base.mark_rule(strokeWidth=1.4).encode(y=_y("low", y_title), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=54, opacity=1).encode(
            y=_y("value", y_title), color=colour, shape=shape
        ),
    ]
    if levels:
        across = alt.Chart().transform_filter("datum.kind === 'level'").encode(tooltip=_tooltip())
        layers.insert(
            0,
            across.mark_rule(strokeWidth=1.4).encode(
                y=_y("value", y_title), color=colour, strokeDash=dash
            ),
        )
    chart = alt.layer(*layers).properties(width=420, height=240)
    return chart.properties(data=alt.Data(values=data))


def histogram(rows: Sequence[dict[str, Any]], *, x_title: str, y_title: str) -> alt.TopLevelMixin:
    """Counts over bins of a logarithmic axis, a step line for each series, one over the other.

    Args:
        rows: low and high edge, count, series.
    """
    names = list(dict.fromkeys(row["series"] for row in rows))
    scale = alt.Scale(domain=names, range=list(SERIES_COLOURS[: len(names)]))
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar(opacity=0.55, binSpacing=0)
        .encode(
            x=alt.X("low:Q", title=x_title, scale=alt.Scale(type="log"), bin="binned"),
            x2="high:Q",
            y=alt.Y("count:Q", title=y_title, stack=False),
            color=alt.Color("series:N", title=None, scale=scale, legend=alt.Legend(orient="top")),
            tooltip=[
                alt.Tooltip("series:N", title="tokens that"),
                alt.Tooltip("low:Q", format=".2~g"),
                alt.Tooltip("high:Q", format=".2~g"),
                alt.Tooltip("count:Q", format=","),
            ],
        )
    )
    return chart.properties(width=460, height=230)


def _y(column: str, title: str) -> alt.Y:
    return alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False, nice=True))


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("series:N"),
        alt.Tooltip("x:Q", format=".4~g"),
        alt.Tooltip("value:Q", format=".4~g"),
        alt.Tooltip("low:Q", format=".4~g"),
        alt.Tooltip("high:Q", format=".4~g"),
    ]
