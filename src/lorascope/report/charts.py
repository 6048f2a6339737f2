"""Two kinds of chart, heatmap and intervals; each draws the chance level beside the number.

Colours are safe for colour-blind readers and stand on light and dark paper; theme colours (axes,
text, background) are left to the page and to `EXPORT_CONFIG`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import altair as alt

from lorascope.report.formatting import (
    difference_words,
    interval,
    number,
    sign,
    verdict_words,
)
from lorascope.results import Estimate
from lorascope.results.labels import Of

Row = dict[str, Any]

CHANCE_COLOUR: Final = "#8a8f98"
SERIES_COLOURS: Final = ("#3a86c8", "#e07b39", "#2a9d78", "#b874a9")
_SHAPES: Final = ("circle", "square", "diamond", "triangle-up")
_RAMP: Final = ("#dfe9f3", "#8fb3d4", "#14467a")
_DIVERGING: Final = ("#a4500a", "#f4f1ec", "#14467a")
_DARK_INK: Final = "#16202c"
_PAGE_WIDTH: Final = 900
_CELL: Final = (65, 44)
_LABEL: Final = 64
_NARROWEST: Final = 150

EXPORT_CONFIG: Final[dict[str, Any]] = {
    "background": "white",
    "view": {"stroke": "#d9dde3"},
    "axis": {"gridColor": "#eceff3", "domainColor": "#9aa1ab", "tickColor": "#9aa1ab"},
}


def row_of(estimate: Estimate, label: str, series: str) -> Row:
    """An estimate as one chart row; every number in it is a number of the results table."""
    place = estimate.key
    chance = estimate.headline
    low, high = estimate.interval
    return {
        "measure": estimate.measure,
        "series": series,
        "label": label,
        "adapter": place.adapter,
        "rank": place.rank,
        "site": place.site,
        "dictionary": str(Of.key(place)),
        "value": estimate.value,
        "low": low,
        "high": high,
        "chance": chance.level if chance else None,
        "chance_low": chance.low if chance else None,
        "chance_high": chance.high if chance else None,
        "null": chance.name if chance else "",
        "n": estimate.n,
        "unit": estimate.unit,
        "verdict": verdict_words(estimate),
        "difference": difference_words(estimate),
        "interval": interval(low, high) or "none",
        "chance interval": interval(chance.low, chance.high) if chance else "none",
        "printed": f"{number(estimate.value)} {sign(estimate)}",
        "printed chance": f"vs {number(chance.level)}" if chance else "",
    }


def null_rows(estimate: Estimate, row: Row) -> list[Row]:
    """One chart row for each null after the headline one."""
    kept = ("measure", "series", "label", "adapter", "rank", "site", "dictionary", "unit")
    return [
        {column: row[column] for column in kept}
        | {
            "null": chance.name,
            "level": chance.level,
            "chance interval": interval(chance.low, chance.high),
            "verdict": estimate.against(chance),
        }
        for chance in estimate.nulls
        if chance is not estimate.headline
    ]


def heatmap(
    rows: Sequence[Row], *, labels: Sequence[str], sites: Sequence[str], x_title: str, unit: str
) -> alt.TopLevelMixin:
    """Site × adapter cells, colour and first line the value, second line its chance level.

    One panel for each series, all on one colour scale; the scale is centred on zero where values
    of both signs occur.
    """
    domain, colours = _colour_scale([row["value"] for row in rows])
    x = alt.X(
        "label:N",
        title=x_title,
        scale=alt.Scale(domain=list(labels)),
        axis=_labelled(labels),
    )
    y = alt.Y("site:N", title="site", scale=alt.Scale(domain=list(sites)))
    colour = alt.Color(
        "value:Q",
        title=unit,
        scale=alt.Scale(domain=domain, range=list(colours), interpolate="rgb"),
        legend=alt.Legend(orient="top", gradientLength=140, format=".3~g"),
    )
    base = alt.Chart().encode(x=x, y=y, tooltip=_tooltip())
    cells = base.mark_rect(cornerRadius=2).encode(color=colour)
    ink = alt.condition(_pale(domain), alt.value(_DARK_INK), alt.value("white"))
    value = base.mark_text(dy=-7, fontSize=11, fontWeight=600).encode(text="printed:N", color=ink)
    chance = base.mark_text(dy=9, fontSize=9.5).encode(text="printed chance:N", color=ink)
    width, height = len(labels) * _CELL[0], len(sites) * _CELL[1]
    layers = alt.layer(cells, value, chance).properties(width=width, height=height)
    return _panels(layers, rows, "series", list(dict.fromkeys(r["series"] for r in rows)), width)


def intervals(
    rows: Sequence[Row],
    nulls: Sequence[Row],
    references: Sequence[Row],
    *,
    labels: Sequence[str],
    sites: Sequence[str],
    x_title: str,
    unit: str,
    joined: bool = False,
) -> alt.TopLevelMixin:
    """Values with 95 % intervals over adapters, one panel per site, all on one scale.

    If `joined`, a line with a band joins the values of each series: for ranks, which have an order.

    Behind each value: a grey band where 95 % of chance lies, a dash at its level, thin marks for
    further nulls. `references` belong to a site rather than an adapter and cross its whole panel.
    """
    series = list(dict.fromkeys(row["series"] for row in (*rows, *references)))
    style = _series_style(series, chance=any(row["chance"] is not None for row in rows))
    x = alt.X(
        "label:N",
        title=x_title,
        scale=alt.Scale(domain=list(labels), type="band", paddingInner=0.25),
        axis=_labelled(labels),
    )
    offset = alt.XOffset(
        "series:N", scale=alt.Scale(domain=_offset_domain(rows), type="point", padding=0.5)
    )
    data = [
        *({**row, "kind": "value"} for row in rows),
        *({**row, "kind": "null"} for row in nulls),
        *({**row, "kind": "reference"} for row in references),
    ]
    # A layer without data would leave its scale without an extent, so it is not drawn at all.
    layers = alt.layer(
        *(_reference_layers(style, unit) if references else []),
        *(_chance_layers(x, offset, unit) if "chance" in style["names"] else []),
        *(_null_layers(x, offset, unit) if nulls else []),
        *(_joining_layers(x, offset, style, unit) if joined else []),
        *_value_layers(x, offset, style, unit),
    )
    panels = [site for site in sites if any(row["site"] == site for row in data)]
    needed = len(labels) * (16 * len(_offset_domain(rows)) + 16)
    # As wide as its labels want, as long as all panels stand in one line.
    wanted = max(_NARROWEST, _LABEL * len(labels))
    width = max(needed, min(wanted, _PAGE_WIDTH // len(panels) - 24))
    return _panels(layers.properties(width=width, height=210), data, "site", panels, width)


def lines(
    rows: Sequence[Row],
    *,
    order: Sequence[str],
    x_title: str,
    unit: str,
    panels: Sequence[str] = (),
) -> alt.TopLevelMixin:
    """Values over an ordered axis, a line for each series, each with its chance level behind it.

    With `panels`, one for each site.
    """
    style = _series_style(list(dict.fromkeys(row["series"] for row in rows)), chance=True)
    axis = _labelled(order)
    x = alt.X("label:N", title=x_title, scale=alt.Scale(domain=list(order)), axis=axis)
    base = alt.Chart().encode(x=x, tooltip=_tooltip())
    grey = alt.ColorDatum("chance", type="nominal")
    layers = alt.layer(
        base.mark_area(fillOpacity=0.12).encode(
            y=_y("chance_low", unit), y2="chance_high:Q", detail="series:N", color=grey
        ),
        base.mark_line(strokeWidth=1, strokeDash=[4, 3]).encode(
            y=_y("chance", unit), detail="series:N", color=grey
        ),
        base.mark_line(strokeWidth=1.6).encode(y=_y("value", unit), color=style["colour"]),
        base.mark_rule(strokeWidth=1.4).encode(
            y=_y("low", unit), y2="high:Q", color=style["colour"]
        ),
        base.mark_point(filled=True, size=52, opacity=1).encode(
            y=_y("value", unit), color=style["colour"], shape=style["shape"]
        ),
    )
    present = [site for site in panels if any(row["site"] == site for row in rows)]
    least, each = (_NARROWEST, 44) if len(present) > 1 else (2 * _NARROWEST, _LABEL)
    width = max(least, min(2 * least, each * len(order)))
    return _panels(layers.properties(width=width, height=210), rows, "site", present, width)


def _y(column: str, unit: str) -> alt.Y:
    return alt.Y(f"{column}:Q", title=unit, scale=alt.Scale(zero=False, nice=True))


def _kind(name: str) -> alt.Chart:
    return alt.Chart().transform_filter(f"datum.kind === '{name}'")


def _value_layers(
    x: alt.X, offset: alt.XOffset, style: dict[str, Any], unit: str
) -> list[alt.Chart]:
    base = _kind("value").encode(x=x, xOffset=offset, tooltip=_tooltip())
    return [
        base.mark_rule(strokeWidth=1.6).encode(
            y=_y("low", unit), y2="high:Q", color=style["colour"]
        ),
        base.mark_point(filled=True, size=58, opacity=1).encode(
            y=_y("value", unit), color=style["colour"], shape=style["shape"]
        ),
    ]


def _joining_layers(
    x: alt.X, offset: alt.XOffset, style: dict[str, Any], unit: str
) -> list[alt.Chart]:
    base = _kind("value").encode(x=x, xOffset=offset, color=style["colour"])
    return [
        base.mark_area(fillOpacity=0.13, opacity=1).encode(y=_y("low", unit), y2="high:Q"),
        base.mark_line(strokeWidth=1.4).encode(y=_y("value", unit)),
    ]


def _chance_layers(x: alt.X, offset: alt.XOffset, unit: str) -> list[alt.Chart]:
    base = _kind("value").encode(
        x=x,
        xOffset=offset,
        color=alt.ColorDatum("chance", type="nominal"),
        tooltip=_tooltip(),
    )
    return [
        base.mark_rule(strokeWidth=11, strokeOpacity=0.3, opacity=1).encode(
            y=_y("chance_low", unit), y2="chance_high:Q"
        ),
        base.mark_point(shape="stroke", size=150, strokeWidth=2.4, opacity=1).encode(
            y=_y("chance", unit)
        ),
    ]


def _null_layers(x: alt.X, offset: alt.XOffset, unit: str) -> list[alt.Chart]:
    base = _kind("null").encode(x=x, xOffset=offset, tooltip=_null_tooltip())
    return [
        base.mark_point(shape="stroke", size=70, strokeWidth=1, opacity=0.9).encode(
            y=_y("level", unit), color=alt.value(CHANCE_COLOUR)
        )
    ]


def _reference_layers(style: dict[str, Any], unit: str) -> list[alt.Chart]:
    base = _kind("reference").encode(color=style["colour"], tooltip=_tooltip())
    return [
        base.mark_rect(fillOpacity=0.14, opacity=1).encode(y=_y("low", unit), y2="high:Q"),
        base.mark_rule(strokeDash=[5, 3], strokeWidth=1.6).encode(y=_y("value", unit)),
    ]


def _series_style(series: Sequence[str], *, chance: bool) -> dict[str, Any]:
    names = [*series, "chance"] if chance else list(series)
    repeats = range(len(series))
    colours = [SERIES_COLOURS[i % len(SERIES_COLOURS)] for i in repeats] + [CHANCE_COLOUR]
    shapes = [_SHAPES[i % len(_SHAPES)] for i in repeats] + ["stroke"]
    return {
        "names": names,
        "colour": alt.Color(
            "series:N",
            title=None,
            scale=alt.Scale(domain=names, range=colours[: len(names)]),
            legend=alt.Legend(orient="top", symbolOpacity=1, labelLimit=320),
        ),
        "shape": alt.Shape(
            "series:N",
            title=None,
            scale=alt.Scale(domain=names, range=shapes[: len(names)]),
            legend=alt.Legend(orient="top", symbolOpacity=1, labelLimit=320),
        ),
    }


def _offset_domain(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["series"] for row in rows))


def _panels(
    layers: alt.LayerChart, rows: Sequence[Row], column: str, order: list[str], width: int
) -> alt.TopLevelMixin:
    # Altair copies a list at every step of a chart, row by row; a tuple it takes as it is.
    data = alt.Data(values=tuple(rows))
    if len(order) < 2 and (not order or not order[0]):
        return layers.properties(data=data)
    header = alt.Header(title=None, labelFontSize=12, labelFontWeight=600)
    across = min(len(order), max(1, _PAGE_WIDTH // (width + 24)))
    return layers.facet(
        data=data, facet=alt.Facet(f"{column}:N", sort=order, header=header), columns=across
    )


def _colour_scale(values: Sequence[float]) -> tuple[list[float], tuple[str, ...]]:
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low < 0:
        reach = max(-low, abs(high))
        return [-reach, 0.0, reach], _DIVERGING
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [low, (low + high) / 2, high], _RAMP


def _pale(domain: Sequence[float]) -> str:
    low, middle, high = domain
    if low < 0 and middle == 0:
        return f"abs(datum.value) < {0.55 * high!r}"
    return f"datum.value < {low + 0.52 * (high - low)!r}"


def _labelled(labels: Sequence[str]) -> alt.Axis:
    angle = -40 if any(len(label) > 8 for label in labels) else 0
    return alt.Axis(labelAngle=angle, labelLimit=280, grid=False)


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("series:N", title="number"),
        alt.Tooltip("adapter:N"),
        alt.Tooltip("rank:Q"),
        alt.Tooltip("site:N"),
        alt.Tooltip("value:Q", format=".4~g"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("chance:Q", format=".4~g"),
        alt.Tooltip("chance interval:N", title="95 % of chance"),
        alt.Tooltip("null:N"),
        alt.Tooltip("difference:N", title="difference, 95 % interval"),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("n:Q", format=","),
        alt.Tooltip("unit:N"),
    ]


def _null_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("null:N"),
        alt.Tooltip("level:Q", title="chance", format=".4~g"),
        alt.Tooltip("chance interval:N", title="95 % of chance"),
        alt.Tooltip("verdict:N", title="value against it"),
        alt.Tooltip("adapter:N"),
        alt.Tooltip("site:N"),
        alt.Tooltip("series:N", title="number"),
    ]
