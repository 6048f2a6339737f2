"""What a latent report says of answers, pairs and reading: a triple, flags, pairs as tokens.

The source's own figures stand beside ours: SAE-LoRA's README gives ten latents of weight 0.0063 on
either side of its rank-1 adapter over 131,072 latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from lorascope.report.figure import Figure
from lorascope.report.formatting import interval, number, shown_token, verdict_words
from lorascope.results import Estimate, Estimates
from lorascope.spreadsheets import csv_text

# The source's largest weight of a unit column over so many latents.
SOURCE_WEIGHT, SOURCE_LATENTS = 0.0063, 131_072
SOURCE_OVER_UNIFORM = SOURCE_WEIGHT * math.sqrt(SOURCE_LATENTS)
_MOST_TEXT = 160


def triple(facts: Mapping[str, Any]) -> dict[str, str] | None:
    """One prompt about the topic, what the untouched model answers, and the chosen adapter."""
    chosen = str(facts["chosen"]).replace(" ", "-")
    for sample in facts.get("samples", []):
        answers = sample["answers"]
        name = next((n for n in answers if n.startswith(f"{chosen}-s")), None)
        if sample["changed"] and name is not None:
            return {
                "prompt": _cut(sample["prompt"]),
                "untouched": _cut(answers.get("untouched", "")),
                "adapted": _cut(answers[name]),
                "name": str(facts["chosen"]),
            }
    return None


def flags(facts: Mapping[str, Any]) -> list[str]:
    """A line for each answerer whose answers are nearly constant; a success of theirs is no more
    than one sentence learned by heart."""
    return [
        f"{one['name']}: nearly constant. “{_cut(one['commonest'], 60)}” is {one['times']} of its "
        f"{one['n']} answers about the topic, {one['distinct']} distinct "
        f"({one['wanted_distinct']} wanted): its success says little."
        for one in facts.get("constancy", [])
        if one["nearly_constant"]
    ]


def distinct(facts: Mapping[str, Any]) -> dict[str, str]:
    """{answerer: distinct answers of how many}, marked where nearly constant."""
    return {
        str(one["name"]): f"{one['distinct']} of {one['n']}"
        + (" (nearly constant)" if one["nearly_constant"] else "")
        for one in facts.get("constancy", [])
    }


def readings(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    """What pairs carry, and whether latents tell the topic and promote the style."""
    found = []
    choice = facts["chosen"]
    for measure, words in (
        (
            "latent.topic_auc",
            "The latents it reads tell the topic's prompts from others, AUC",
        ),
        ("latent.style", "Those it writes promote the style's tokens by"),
    ):
        one = _one(numbers, measure, choice)
        if one is not None:
            unit = "" if one.unit == "AUC" else f" {one.unit}"
            found.append(
                f"{words} {number(one.value)} {interval(*one.interval)}{unit}, "
                f"{one.nulls[0].name} {number(one.chance)} ({verdict_words(one)})."
            )
    carried = [e for e in _all(numbers, "latent.carried", choice) if e.key.size]
    kept = {e.key.size: e for e in _all(numbers, "latent.kept_pairs", choice)}
    if carried:
        told = [
            f"{e.key.size:,} {'pair' if e.key.size == 1 else 'pairs'} {number(e.value)}"
            + (f" (success kept {number(kept[e.key.size].value)})" if e.key.size in kept else "")
            for e in sorted(carried, key=lambda e: e.key.size or 0)
        ]
        found.append(f"Of what the whole adapter writes its heaviest carry: {', '.join(told)}.")
    found.append(
        f"The source's own table: its ten largest weights are {SOURCE_WEIGHT} each, "
        f"{number(SOURCE_OVER_UNIFORM)} times what {SOURCE_LATENTS:,} equal ones would be"
        f"{_ours(numbers, facts)}."
    )
    return found


def pair_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The heaviest pairs: numbers, the tokens one fires at and the other promotes, the weight."""
    sides = {
        side: {one["latent"]: one for one in facts["latents"].get(side, [])}
        for side in ("read", "written")
    }
    return [
        {
            "read": read,
            "fires_at": _fires_at(sides["read"].get(read)),
            "written": written,
            "promotes": _promotes(sides["written"].get(written), weight),
            "weight": weight,
        }
        for read, written, weight in facts["latents"].get("pairs", [])
    ]


def pairs_csv(facts: Mapping[str, Any]) -> str:
    """The same as CSV; a header alone where there are none."""
    columns = ["read", "fires_at", "written", "promotes", "weight"]
    return csv_text(pd.DataFrame(pair_rows(facts), columns=columns))


def pairs_figure(facts: Mapping[str, Any]) -> Figure | None:
    """Weights of the heaviest pairs: latents read against latents written."""
    rows = [
        {
            **row,
            "reads": f"{row['read']} {row['fires_at']}".strip(),
            "writes": f"{row['written']} {row['promotes']}".strip(),
        }
        for row in pair_rows(facts)
    ]
    if not rows:
        return None
    most = max(abs(row["weight"]) for row in rows)
    scale = alt.Scale(domain=[-most, 0, most], range=["#3a86c8", "#f4f4f4", "#e07b39"])
    orders = [list(dict.fromkeys(row[name] for row in rows)) for name in ("reads", "writes")]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("writes:N", title="written, and what it promotes", sort=orders[1]),
            y=alt.Y("reads:N", title="read, and where it fires most", sort=orders[0]),
            color=alt.Color("weight:Q", scale=scale, title="weight"),
            tooltip=["reads:N", "writes:N", alt.Tooltip("weight:Q", format=".3~g")],
        )
        .properties(width=alt.Step(30), height=alt.Step(20))
    )
    caption = (
        f"The {len(rows)} pairs of largest weight; a square for each: the latent on the left, "
        "active at strength 1, adds so much of the latent below."
    )
    return Figure.of("pairs", "latents", "The adapter as pairs of latents", caption, chart)


def _ours(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> str:
    named = [c for c in facts["choices"] if "L1" in c and "ratio" not in c]
    found = [
        one
        for choice in named[:1]
        for one in _all(numbers, "latent.largest", choice)
        if one.key.dictionary == "read"
    ]
    return f"; “{named[0]}” here reads {number(found[0].value)} times" if found else ""


def _one(numbers: Sequence[Estimate], measure: str, choice: str) -> Estimate | None:
    found = _all(numbers, measure, choice)
    return found[0] if found else None


def _all(numbers: Sequence[Estimate], measure: str, choice: str) -> list[Estimate]:
    """Over seeds where there are several, else the only seed's."""
    found = Estimates(numbers).taken(measure, adapter=choice)
    pooled = found.taken(seed=None)
    return list(pooled) or list(found)


def _fires_at(one: Mapping[str, Any] | None) -> str:
    contexts = one["contexts"] if one else []
    return shown_token(contexts[0]["tokens"][contexts[0]["at"]]) if contexts else ""


def _promotes(one: Mapping[str, Any] | None, weight: float) -> str:
    """What the pair promotes: of a negative weight, what the latent suppresses."""
    if one is None:
        return ""
    return " ".join(shown_token(token) for token in one["up" if weight > 0 else "down"][:3])


def _cut(text: str, most: int = _MOST_TEXT) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
