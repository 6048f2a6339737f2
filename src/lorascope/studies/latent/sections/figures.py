"""The figures of a latent study: the frontier, and how flat factors stay in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt

from lorascope.report.charts import CHANCE_COLOUR
from lorascope.report.figure import Figure
from lorascope.report.formatting import interval
from lorascope.results import Estimate
from lorascope.results.null_names import RANDOM_LATENTS

_COLOURS: Final = (
    *("#3a86c8", "#e07b39", "#2a9d78", "#b874a9", "#8c6d46"),
    *("#c9a227", "#5b6abf", "#7a8b3c", "#b5485d"),
)
_NAMES: Final = {
    "effective_read": "read",
    "effective_written": "written",
}

_POINT: Final = [
    alt.Tooltip("choice:N"),
    alt.Tooltip("m:Q", title="latents read, and written"),
    alt.Tooltip("kept:Q", format=".3~g"),
    alt.Tooltip("interval:N", title="95 % interval"),
    alt.Tooltip("chance:Q", format=".3~g"),
    alt.Tooltip("null:N"),
    alt.Tooltip("verdict:N"),
]


def frontier_figure(estimates: Sequence[Estimate], facts: Mapping[str, Any]) -> Figure | None:
    """Behaviour kept against latents read and written, over seeds, beside random latents."""
    kept = [e for e in estimates if e.measure == "latent.kept"]
    shown = [e for e in kept if e.key.seed is None] or kept
    points, random = [], []
    used = _used(estimates)
    for e in shown:
        # A whole adapter stands where its number of latents is.
        size = used.get(e.key.adapter) if e.key.size is None else e.key.size
        if size is None:
            continue
        row = {"choice": e.key.adapter, "m": size, "kept": e.value}
        low, high = (e.value if b != b else b for b in e.interval)
        shown_interval = interval(*e.interval)
        points.append({**row, "low": low, "high": high, "interval": shown_interval, **_chance(e)})
        random += [
            {"m": size, "level": c.level, "low": c.low, "high": c.high}
            for c in e.nulls
            if c.name == RANDOM_LATENTS and e.key.adapter == "dense"
        ]
    if not points:
        return None
    x = alt.X("m:Q", title="latents read, and as many written", scale=alt.Scale(type="log", base=2))
    colour = _colour(facts)
    base = alt.Chart(alt.Data(values=points)).encode(x=x, color=colour, tooltip=_POINT)
    y = alt.Y("kept:Q", title="success over the dense adapter's")
    goal = alt.Chart(alt.Data(values=[{"goal": facts["share"]}])).mark_rule(strokeDash=[5, 4])
    chance = alt.Chart(alt.Data(values=random))
    layers = [
        chance.mark_area(color=CHANCE_COLOUR, opacity=0.25).encode(x=x, y="low:Q", y2="high:Q"),
        chance.mark_line(color=CHANCE_COLOUR).encode(x=x, y="level:Q"),
        goal.encode(y="goal:Q"),
        base.mark_line().encode(y=y),
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        base.mark_point(filled=True, size=50).encode(y=y),
    ]
    chart = alt.layer(*(layers if random else layers[2:])).properties(width=620, height=320)
    caption = (
        f"Marks: mean over {len(facts['seeds'])} seeds with its 95 % interval, the last of each "
        "choice the whole adapter. Grey: the dense adapter with as many latents drawn at random, "
        "where 95 % of draws fall. Dashed: the goal."
    )
    return Figure.of("frontier", "frontier", "Behaviour kept by few latents", caption, chart)


def _chance(estimate: Estimate) -> dict[str, Any]:
    """The headline chance level, for the pointer."""
    if (null := estimate.headline) is None:
        return {}
    return {"null": null.name, "chance": null.level, "verdict": estimate.verdict}


def _used(estimates: Sequence[Estimate]) -> dict[str, int]:
    """Latents that a choice reads or writes, the larger number, at most over seeds."""
    found: dict[str, int] = {}
    for e in estimates:
        if e.measure == "latent.used":
            found[e.key.adapter] = max(found.get(e.key.adapter, 1), round(e.value))
    return found


def flatness_figure(facts: Mapping[str, Any]) -> Figure | None:
    """Effective numbers of latents over training, and the penalty of choices that have one."""
    rows = []
    for point in facts["curves"]:
        for series, name in _NAMES.items():
            value = float(point[series])
            rows.append({**_point(point), "panel": f"effective latents {name}", "value": value})
        if point["penalty"] > 0:
            penalty = float(point["penalty"])
            rows.append({**_point(point), "panel": "penalty", "value": penalty})
    if not rows:
        return None
    panels = [f"effective latents {name}" for name in _NAMES.values()] + ["penalty"]
    charts = []
    for panel in panels:
        own = [row for row in rows if row["panel"] == panel]
        if own:
            charts.append(
                alt.Chart(alt.Data(values=own))
                .mark_line()
                .encode(
                    x=alt.X("step:Q", title="step"),
                    y=alt.Y("value:Q", title=None, scale=alt.Scale(type="log")),
                    color=_colour(facts),
                    detail="seed:N",
                    tooltip=["choice:N", "seed:N", "step:Q", "value:Q"],
                )
                .properties(width=250, height=220, title=panel)
            )
    chart = alt.hconcat(*charts)
    n = facts["dictionary"]["latents"]
    caption = (
        f"A line a seed. A row of Gaussian entries, as factors start, has {n / 3:,.0f} effective "
        f"latents of {n:,}. Where the penalty falls and this does not, it has been lowered by "
        "shrinking whole rows."
    )
    title = "How many latents carry the factors, over training"
    return Figure.of("flatness", "flatness", title, caption, chart)


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    return {"choice": point["choice"], "seed": str(point["seed"]), "step": point["step"]}


def _colour(facts: Mapping[str, Any]) -> alt.Color:
    names = list(facts["choices"])
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(names))]
    return alt.Color(
        "choice:N",
        title=None,
        scale=alt.Scale(domain=names, range=colours),
        legend=alt.Legend(orient="top", columns=5),
    )
