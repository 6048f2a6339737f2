"""The first screen's five questions, each answered in a sentence or two beside its chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lorascope.reading.carried import ALL, WHOLE, Carrier
from lorascope.report.conditions import measured
from lorascope.report.formatting import (
    interval,
    listing,
    number,
    plural,
    shown_passage,
    shown_token,
    verdict_words,
)
from lorascope.report.latents import Browsed
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.labels import BASE, DELTA, Of
from lorascope.studies.audit.sections.carriers import carried_sentences
from lorascope.studies.audit.sections.drift import beyond_nulls, drift_sentence

# Adapters that the first screen tells of; all of them stand below.
TOLD: Final = 3
# Characters of a continuation on the first screen.
_SHOWN: Final = 240

TITLES: Final = (
    "Is it live?",
    "How much does it change behaviour, and where?",
    "What did it learn?",
    "Which latents carry it, and are they new?",
    "What can the base's dictionary see of it?",
)


@dataclass(frozen=True)
class FirstQuestion:
    """One question and the answers, one or two sentences an adapter."""

    title: str
    answers: list[str]


@dataclass(frozen=True)
class Shown:
    """One prompt of an adapter, before and after.

    Attributes:
        base, plain, amplified: continuations, control characters shown.
    """

    adapter: str
    prompt: str
    base: str
    plain: str
    amplified: str


def questions(results: Results, live: str, browsed: Sequence[Browsed]) -> list[FirstQuestion]:
    """The five in their order; one without an answer is left out.

    Args:
        live: what the sanity checks say.
    """
    names = results.adapters[:TOLD]
    several = len(results.adapters) > 1
    answers = [
        [live] if live else [],
        *(
            [
                f"{name}: {said}" if several else said[:1].upper() + said[1:]
                for name in names
                if (said := answer(results, name, browsed))
            ]
            for answer in (_behaviour, _learned, _latents, _seen)
        ),
    ]
    if several and len(results.adapters) > TOLD:
        more = plural(len(results.adapters) - TOLD, "adapter")
        answers = [[*a, f"{more} more below."] if len(a) >= TOLD else a for a in answers]
    return [FirstQuestion(t, a) for t, a in zip(TITLES, answers, strict=True) if a]


def shown_examples(results: Results) -> list[Shown]:
    """A prompt before and after of each adapter that was read."""
    told = results.facts.get("read", {})
    found = []
    for name in results.adapters[:TOLD]:
        example = told.get(name, {}).get("example")
        if example:
            texts = (_shown(str(example[key])) for key in ("prompt", "base", "plain", "amplified"))
            found.append(Shown(name, *texts))
    return found


def _shown(text: str) -> str:
    found = "".join(shown_passage([text]))
    return found if len(found) <= _SHOWN else found[:_SHOWN] + "…"


def _of(results: Results, name: str, measure: str, of: Of | None = None) -> list[Estimate]:
    rows = measured(results, measure, of, first_seed=True)
    return [row for row in rows if row.key.adapter == name]


def _beside(row: Estimate) -> str:
    """A number, its interval, its chance level and its verdict."""
    around = interval(*row.interval)
    null = row.headline
    chance = "" if null is None else f"{null.name} {number(null.level)}; "
    return f"{number(row.value)} {row.unit}{around and f' {around}'} ({chance}{verdict_words(row)})"


def _behaviour(results: Results, name: str, _: Sequence[Browsed]) -> str:
    parts = [
        f"held-out response loss {_beside(r)}" for r in _of(results, name, "response_loss")[:1]
    ]
    every = [e for e in results.numbers.taken("reading.kl") if e.key.adapter == name]
    parts += [f"KL on ordinary text {_beside(e)}" for e in every if not e.key.setting][:1]
    by_part = [e for e in every if e.key.setting]
    if by_part:
        most = max(by_part, key=lambda e: e.value)
        parts.append(f"most {most.key.setting} of a text, {number(most.value)} {most.unit}")
    relative = _of(results, name, "delta_norm.relative")
    if relative:
        most = max(relative, key=lambda e: e.value)
        parts.append(
            f"the delta is longest at {most.key.site}, {number(100 * most.value)} % of the "
            "stream's norm"
        )
    return f"{'; '.join(parts)}." if parts else ""


def _learned(results: Results, name: str, _: Sequence[Browsed]) -> str:
    one = results.facts.get("read", {}).get(name)
    return told_in_words(one) if one else ""


def told_in_words(one: Mapping[str, Any]) -> str:
    """The verdict of a reading, how many phrases null adapters bring back in the same run, and what
    a judge says where one was asked."""
    counts = [int(count) for count in one["null_phrases"]]
    said = [str(one["sentences"][0])]
    if counts:
        total = plural(sum(counts), "phrase")
        bring = "brings" if len(counts) == 1 else "bring"
        said.append(
            f"(Chance: {plural(len(counts), 'null adapter')} in its place {bring} back {total}.)"
        )
    return " ".join([*said, *one.get("judged", [])])


def _latents(results: Results, name: str, browsed: Sequence[Browsed]) -> str:
    told = results.facts.get("read", {}).get(name, {}).get("carriers", [])
    carriers = [Carrier.revived(one) for one in told]
    latents = [one for one in carriers if one.of_latents or one.part == WHOLE]
    here = [each for each in browsed if str(each.head["adapter"]) == name and len(each)]
    if not latents:
        return _strongest(here)
    lines = carried_sentences(latents)
    whole = [one for one in latents if one.phrase == ALL and one.part == "delta"]
    if whole:
        most = max(whole, key=lambda one: (one.carries, one.taken))
        lines.append(_new(most, here))
    return " ".join(line for line in lines if line)


def _new(carrier: Carrier, here: Sequence[Browsed]) -> str:
    """How many of the carrier's latents lie nearer a base latent than chance."""
    for each in here:
        if str(each.head["site"]) != carrier.site:
            continue
        at = {latent: n for n, latent in enumerate(each.columns["latent"])}
        rows = [at[latent] for latent in carrier.latents if latent in at]
        near = [n for n in rows if each.columns["verdict"][n] == "above"]
        chance = each.head["chance"]
        best = max((each.columns["cosine"][n] or 0.0 for n in rows), default=0.0)
        said = (
            f"Of the delta dictionary's best {plural(len(rows), 'latent')} {len(near)} lie nearer "
            "a base latent than chance, the others are new directions"
        )
        if len(rows) == 1:
            new = "nearer a base latent than chance" if near else "a new direction"
            said = f"The delta dictionary's best latent is {new}"
        beside = f"{chance['null']} {number(chance['level'])}"
        return f"{said} (largest cosine {number(best)}; {beside})."
    return ""


def _strongest(here: Sequence[Browsed]) -> str:
    """The latent that writes most at any site, and whether a base latent is near."""
    if not here:
        return ""
    each = max(here, key=lambda one: one.columns["written"][0] or 0.0)
    columns, chance = each.columns, each.head.get("chance")
    tokens = listing([f"“{shown_token(token)}”" for token in columns["promotes"][0][:3]])
    said = (
        f"latent {columns['latent'][0]} at {each.head['site']} writes most and promotes "
        f"{tokens or 'nothing'}"
    )
    if not chance or "cosine" not in columns:
        return f"{said}."
    near = "nearer than chance" if columns["verdict"][0] == "above" else "no nearer than chance"
    return (
        f"{said}; its nearest base latent is {near} (cosine {number(columns['cosine'][0] or 0.0)}, "
        f"{chance['null']} {number(chance['level'])})."
    )


def _seen(results: Results, name: str, _: Sequence[Browsed]) -> str:
    """What returns through the base dictionary, and how many of its latents drift."""
    drifts = [one for one in results.facts.get("drift", []) if one["adapter"] == name]
    most = max(drifts, key=beyond_nulls, default=None)
    lines = [_returned(results, name), *([drift_sentence(most)] if most else [])]
    return " ".join(line for line in lines if line)


def _returned(results: Results, name: str) -> str:
    base, delta = (_of(results, name, "recovery.kl", Of(which)) for which in (BASE, DELTA))
    if base:
        best = max(base, key=lambda e: e.value)
        said = (
            f"through the base dictionary at {best.key.site} {_beside(best)} of the effect on the "
            "outputs returns"
        )
        same = [e for e in delta if e.key.site == best.key.site]
        return said + (f", through the delta dictionary {number(same[0].value)}." if same else ".")
    error = _of(results, name, "relative_error", Of(BASE))
    if not error:
        return ""
    best = min(error, key=lambda e: e.value)
    return f"the base dictionary at {best.key.site} leaves a relative error of {_beside(best)}."
