"""The page of a resemblance: clustered heat map, neighbours, every pair; one file, no scripts."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from lorascope.measures.definitions import DEFINITIONS
from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.figure import VEGA_LITE_VERSION
from lorascope.report.formatting import interval, number
from lorascope.report.rendering import asset, rendered
from lorascope.resembling.resemble import FUNCTION, MEASURES, WEIGHTS, Resemblance, other
from lorascope.results import Estimate
from lorascope.runs import write_atomically

_NEAREST = 3
# Above so many adapters numbers in cells are no longer read.
_PRINTED = 24


def write(found: Resemblance, out: Path, command: str = "") -> Path:
    """Write resemblance.json, estimates.parquet and report/index.html; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    found.estimates.write(out / "estimates.parquet")
    text = json.dumps(found.plain(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "resemblance.json", text + "\n")
    page = out / "report" / "index.html"
    write_atomically(page, render(found, command))
    return page


def sentences(found: Resemblance) -> list[str]:
    """What was found, in a few plain sentences."""
    said = []
    for name in found.names:
        near = found.neighbours(name)
        above = [one for one in near if one.verdict == "above"]
        if not above:
            said.append(f"{name}: no other adapter is more like it than null adapters are.")
            continue
        first = above[0]
        level = first.headline
        assert level is not None
        said.append(
            f"{name} is most like {other(first, name)}: {number(first.value)} "
            f"{interval(*first.interval)}, null adapters {number(level.level)} "
            f"[{number(level.low)}, {number(level.high)}]."
        )
    for measure in (FUNCTION, WEIGHTS):
        upper = found.upper(measure)
        if math.isfinite(upper):
            title = DEFINITIONS[measure].title.lower()
            said.append(f"Taught the same, other seed: {number(upper)} ({title}).")
    return said


def render(found: Resemblance, command: str) -> str:
    """The page's HTML."""
    definitions = [(measure, DEFINITIONS[measure]) for measure in MEASURES]
    return rendered(
        "resemblance.html.j2",
        model=found.model,
        adapters=found.adapters,
        documents=found.documents,
        tokens=found.tokens,
        draws=2 * found.settings.draws,
        sentences=sentences(found),
        chart=_picture(found),
        neighbours=[_near(found, name) for name in found.names],
        pairs=[_row(one) for one in found.estimates],
        definitions=definitions,
        command=command,
        settings=json.dumps(found.settings.model_dump(), indent=2, ensure_ascii=False),
        style=asset("style.css", "comparison.css"),
    )


def _near(found: Resemblance, name: str) -> dict[str, Any]:
    rows = []
    for one in found.neighbours(name)[:_NEAREST]:
        weights = next(
            (e for e in found.neighbours(name, WEIGHTS) if other(e, name) == other(one, name)), None
        )
        held = "" if weights is None else number(weights.value)
        rows.append({**_row(one), "name": other(one, name), "weights": held})
    return {"name": name, "rows": rows}


def _row(estimate: Estimate) -> dict[str, Any]:
    null = estimate.headline
    assert null is not None
    assert null.p is not None
    return {
        "title": DEFINITIONS[estimate.measure].title,
        "first": estimate.key.adapter,
        "second": estimate.key.compared,
        "value": number(estimate.value),
        "interval": interval(*estimate.interval),
        "chance": number(null.level),
        "span": interval(null.low, null.high),
        "p": number(null.p),
        "verdict": estimate.verdict,
    }


def _picture(found: Resemblance) -> str:
    """Tree and heat map as a picture, a data URI."""
    chart = alt.vconcat(_tree(found), _cells(found), spacing=4).configure(**EXPORT_CONFIG)
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE_VERSION)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _width(found: Resemblance) -> int:
    return min(920, max(240, 34 * len(found.adapters)))


def _tree(found: Resemblance) -> alt.LayerChart:
    rows = []
    for left, right, height, below_left, below_right in found.clusters.heights():
        for x, x2, y, y2 in (
            (left, left, below_left, height),
            (right, right, below_right, height),
            (left, right, height, height),
        ):
            rows.append({"x": x + 0.5, "x2": x2 + 0.5, "y": y, "y2": y2})
    n = len(found.adapters)
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, n], nice=False), axis=None)
    y = alt.Y("y:Q", title="1 - cosine", scale=alt.Scale(domainMin=0))
    lines = alt.Chart(alt.Data(values=rows)).mark_rule().encode(x=x, x2="x2:Q", y=y, y2="y2:Q")
    return alt.layer(lines).properties(width=_width(found), height=90)


def _cells(found: Resemblance) -> alt.LayerChart:
    names, order = found.names, found.clusters.order
    values = found.similarities[FUNCTION].values
    rows = []
    for i in order:
        for j in order:
            value = float(values[i, j])
            if math.isfinite(value):
                rows.append({"x": names[j], "y": names[i], "value": value, "said": f"{value:.2f}"})
    ordered = [names[i] for i in order]
    scale = alt.Scale(domain=ordered)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:N", title=None, scale=scale, sort=ordered),
        y=alt.Y("y:N", title=None, scale=scale, sort=ordered),
    )
    colours = alt.Scale(scheme="blueorange", domain=[-1, 1], reverse=True)
    legend = alt.Legend(title="cosine over inputs", orient="right")
    layers: list[Any] = [
        base.mark_rect().encode(color=alt.Color("value:Q", scale=colours, legend=legend))
    ]
    if len(names) <= _PRINTED:
        ink = alt.condition("abs(datum.value) > 0.6", alt.value("white"), alt.value("#222"))
        layers.append(base.mark_text(fontSize=9).encode(text="said:N", color=ink))
    size = _width(found)
    return alt.layer(*layers).properties(width=size, height=size)
