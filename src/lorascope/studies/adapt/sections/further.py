"""Two more figures of an adapt report: three losses as one bar, and steered texts one by one."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt

from lorascope.report.charts import SERIES_COLOURS
from lorascope.report.figure import Figure
from lorascope.report.formatting import number
from lorascope.studies.adapt.sections.results import AdaptResults

# Bins of the histograms of steered texts, over the range of all of a latent's changes.
_BINS = 24


def losses(found: AdaptResults) -> Iterator[Figure]:
    """Original, spliced and adapted loss as one bar, split where the adapted model lies."""
    names = ("original", "spliced", "adapted")
    main = found.main
    taken = [found.number(main, f"adapt.loss_{name}") for name in names] if main else []
    if not taken or any(one is None for one in taken):
        return
    original, spliced, adapted = (one.value for one in taken if one is not None)
    rows = [{"from": original, "to": min(adapted, spliced), "what": "left of the cost"}]
    if adapted < spliced:
        rows.append({"from": adapted, "to": spliced, "what": "recovered"})
    else:
        rows.append({"from": spliced, "to": adapted, "what": "made worse"})
    ends = [original, spliced, adapted]
    low, high = min(ends), max(ends)
    room = 0.08 * max(high - low, 1e-6)
    scale = alt.Scale(domain=[low - room, high + room], nice=False, zero=False)
    x = alt.X("from:Q", title="cross-entropy, nats/token", scale=scale)
    colours = alt.Scale(domain=[row["what"] for row in rows], range=list(SERIES_COLOURS[:2]))
    colour = alt.Color("what:N", title=None, scale=colours, legend=alt.Legend(orient="top"))
    bar = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(size=26)
        .encode(x=x, x2="to:Q", color=colour, tooltip=["what:N", "from:Q", "to:Q"])
    )
    marks = [
        {"at": value, "name": f"{name} {number(value)}", "above": name == "adapted"}
        for name, value in zip(names, ends, strict=True)
    ]
    ticks = alt.Chart(alt.Data(values=marks))
    at = alt.X("at:Q", title="cross-entropy, nats/token", scale=scale)
    rule = ticks.mark_tick(thickness=2, size=40, color="#555").encode(x=at)
    # The adapted model's label stands above the bar: it may lie close to either end.
    words = [
        ticks.transform_filter(f"datum.above === {above}")
        .mark_text(dy=dy, fontSize=10)
        .encode(x=at, text="name:N")
        for above, dy in (("true", -30), ("false", 30))
    ]
    chart = alt.layer(bar, rule, *words).properties(width=560, height=96)
    title = "What splicing costs, and what of it comes back"
    caption = (
        f"From the original's loss to the loss with {found.reference} spliced; the mark between is "
        "the adapted model. The axis does not begin at 0."
    )
    yield Figure.of("losses", "baselines", title, caption, chart)


def steered_texts(found: AdaptResults) -> Iterator[Figure]:
    """Histograms of every test text's change under steering, without LoRA and with it."""
    for one in found.facts.get("steering", []):
        changes = one.get("changes")
        if not changes:
            continue
        values = [
            v
            for conditions in changes.values()
            for condition in conditions.values()
            for v in condition
        ]
        low, high = min(values), max(values)
        width = max((high - low) / _BINS, 1e-9)
        rows = [
            {
                "x": low + width * (bin_ + 0.5),
                "count": count,
                "with": _NAMED[condition],
                "texts": kind,
            }
            for kind, conditions in changes.items()
            for condition, those in conditions.items()
            for bin_, count in enumerate(_counted(those, low, width))
        ]
        scale = alt.Scale(domain=list(_NAMED.values()), range=list(SERIES_COLOURS[:2]))
        chart = (
            alt.Chart(alt.Data(values=rows))
            .mark_area(interpolate="step", opacity=0.45)
            .encode(
                x=alt.X("x:Q", title="change of mean log p under steering, points"),
                y=alt.Y("count:Q", title="texts", stack=False),
                color=alt.Color("with:N", title=None, scale=scale, legend=alt.Legend(orient="top")),
                row=alt.Row("texts:N", title=None, sort=["positive", "negative"]),
                tooltip=["with:N", "texts:N", "count:Q"],
            )
            .properties(width=420, height=90)
        )
        latent = one["latent"]
        caption = (
            f"Test texts in which latent {latent} fires (positive) and is silent (negative), each "
            "at the strength tuned on other texts; the paper's figures 7 and 10."
        )
        title = f"Steering by latent {latent}, text by text"
        yield Figure.of(f"steered_{latent}", "steering", title, caption, chart)


_NAMED = {"spliced": "spliced", "adapted": "spliced + LoRA"}


def _counted(values: list[float], low: float, width: float) -> list[int]:
    counts = [0] * (_BINS + 1)
    for value in values:
        counts[min(_BINS, int((value - low) / width))] += 1
    return counts
