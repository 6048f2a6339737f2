"""What was read of an adapter: in sentences, and as one self-contained page without scripts.

Its texts come from models and adapters and are not to be trusted: the template escapes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lorascope.reading.changed import ChangedToken
from lorascope.reading.phrases import LEAST_PROMPTS, LIFT, Phrase
from lorascope.reading.result import Read, Sample
from lorascope.reading.when import Occasion
from lorascope.report.formatting import interval, listing, number, plural, visible
from lorascope.report.rendering import asset, rendered
from lorascope.results.null_names import ADAPTER
from lorascope.runs import write_atomically
from lorascope.studies.audit.sections.carriers import carried_sentences, carrier_rows

PAGE = "index.html"
# So many words of a kind are named in a sentence.
_NAMED = 6


def write_page(found: Read, folder: Path, command: str = "") -> Path:
    """Write the page of a reading into a folder and return its path."""
    page = folder / PAGE
    write_atomically(page, render(found, command))
    return page


def render(found: Read, command: str = "") -> str:
    """The page's HTML."""
    gains, losses = sides(found.changed)
    return rendered(
        "reading.html.j2",
        read=found,
        sentences=sentences(found),
        example=found.example,
        phrases=[_phrase(phrase) for phrase in found.phrases],
        null_phrases=list(zip(found.nulls, found.null_phrases, strict=True)),
        gains=[_word(word) for word in gains],
        losses=[_word(word) for word in losses],
        places=[{**vars(place), "kl": number(place.kl)} for place in found.places],
        first=[{**vars(one), "z": number(one.z), "null": number(one.null)} for one in found.first],
        samples=_by_prompt(found),
        carriers=carrier_rows([asdict(one) for one in found.carriers], found.adapter, ()),
        occasions=[_occasion(one) for one in found.occasions],
        null_occasions=", ".join(map(str, found.null_occasions)) or "–",
        judged=[(one, f"{one.right:g}") for one in found.judged],
        acts=sorted(found.acts, key=lambda one: -one.kl),
        probability=number,
        command=command,
        settings=json.dumps(found.settings, indent=2, ensure_ascii=False),
        style=asset("style.css", "reading.css"),
    )


def sentences(found: Read) -> list[str]:
    """What was found, in a few plain sentences; the verdict first."""
    said = [*_verdict(found), _chance(found), *judged_sentences(found), *_when(found)]
    if found.divergence is not None:
        said += [_changed(found), _first(found)]
    return said + carried_sentences(found.carriers)


def sides(changed: Sequence[ChangedToken]) -> tuple[list[ChangedToken], list[ChangedToken]]:
    """Words that gain and words that lose."""
    return [c for c in changed if c.change > 0], [c for c in changed if c.change < 0]


def _verdict(found: Read) -> list[str]:
    if not found.phrases:
        return [
            f"Nothing recurs: no phrase of {found.adapter} comes back at {LEAST_PROMPTS} or more "
            f"of {found.prompts} prompts beyond what {_beside(found)} bring back."
        ]
    chosen = found.named or found.phrases
    named = listing([_quoted(phrase) for phrase in chosen], _NAMED)
    verb = "comes back" if len(chosen) == 1 else "come back"
    if not found.named:
        return [
            f"Nothing that sets {found.adapter} apart: {named} {verb}, no surer than what a null "
            "adapter brings back."
        ]
    first = chosen[0]
    where = "" if len(chosen) == 1 else ": the first"
    return [
        f"{named} {verb} under {found.adapter}{where} at {first.prompts} of {found.prompts} "
        f"prompts (base: {first.base}; {_of_nulls(first)})."
    ]


def _chance(found: Read) -> str:
    if not found.nulls:
        return (
            f"Without null adapters: phrases are held against the base alone, at a false discovery "
            f"rate of {found.settings['level']:.0%}."
        )
    counts = [len(phrases) for phrases in found.null_phrases]
    return (
        f"Chance: a null adapter in its place brings back {listing([str(n) for n in counts], 20)} "
        f"phrases in this run ({len(counts)} in all, random updates with singular values in the "
        f"adapter's proportions); listed are phrases at a false discovery rate of "
        f"{found.settings['level']:.0%} that are at least {LIFT:g} times as frequent as a null "
        "adapter's."
    )


def judged_sentences(found: Read) -> list[str]:
    """A judge's sentence, how often it tells the adapter apart, and how often null adapters'."""
    if not found.judged:
        return []
    own, *nulls = found.judged
    judge = f"Judge {visible(found.judge)}"
    if own.said is None:
        return [f"{judge} gave no usable answer about {found.adapter}."]
    counts = [f"{one.right:g}" if one.said else "nothing said" for one in nulls]
    beside = f" (null adapters' own sentences: {listing(counts, 20)})" if counts else ""
    if not own.said:
        return [f"{judge} sees nothing that the adapter was taught{beside}."]
    other = ADAPTER if nulls else "the base"
    answered = "" if own.answered == own.tried else f", {own.answered} of them answered"
    return [
        f"{judge}: “{visible(own.said)}” By this it finds the adapter beside {other} at "
        f"{own.right:g} of {own.tried} prompts that it had not seen{answered}{beside}; always the "
        "same answer, and none, is right at half."
    ]


def _when(found: Read) -> list[str]:
    """On which prompts it acts: kinds and words apart from all others."""
    level = found.settings["level"]
    apart = [
        one
        for one in found.occasions
        if one.q <= level and (one.said > one.said_elsewhere or one.kl > one.elsewhere)
    ]
    if len(found.occasions) == 0:
        return []
    counts = listing([str(count) for count in found.null_occasions], 20) or "none tried"
    chance = f"null adapters beside each other stand apart on {counts}"
    if not apart:
        kinds = plural(sum(one.of == "kind" for one in found.occasions), "kind")
        return [f"It acts alike on the prompts tried ({kinds}; {chance})."]
    told = [
        f"{'prompts with ' if one.of == 'words' else ''}“{visible(one.name)}” "
        f"({one.prompts}: {_said(one)}KL {number(one.kl)} nats/token, elsewhere "
        f"{number(one.elsewhere)}, null adapters {number(one.null)})"
        for one in apart
    ]
    return [f"It acts more on {listing(told, 3)}; {chance}."]


def _said(one: Occasion) -> str:
    """How often what comes back is said; nothing where it is said nowhere."""
    if not (one.said or one.said_elsewhere):
        return ""
    return (
        f"{100 * one.said:.0f} % of continuations say what comes back, elsewhere "
        f"{100 * one.said_elsewhere:.0f} %; "
    )


def _changed(found: Read) -> str:
    divergence = found.divergence
    assert divergence is not None
    apart = (
        f"{number(divergence.value)} nats/token {interval(*divergence.interval)}".strip()
        + f" on {divergence.tokens:,} tokens of ordinary text"
    )
    if divergence.nulls:
        apart += f" (null adapters: {listing([number(v) for v in divergence.nulls], 5)})"
    gains, losses = sides(found.changed)
    if not found.changed:
        return (
            f"KL from the base {apart}; no word gains or loses beyond what {_beside(found)} move."
        )
    parts = []
    for words, total, verb in zip((gains, losses), found.n_changed, ("gain", "lose"), strict=True):
        if words:
            named = ", ".join(f'"{visible(word.word)}"' for word in words[:_NAMED])
            verbs = verb if len(words) > 1 else f"{verb}s"
            parts.append(f"{named} {verbs} ({plural(total, 'word')} in all)")
    return f"KL from the base {apart}; {listing(parts)}."


def _first(found: Read) -> str:
    beyond = [one for one in found.first if one.beyond]
    if beyond:
        named = ", ".join(f'"{visible(one.token)}"' for one in beyond[:_NAMED])
        return f"The mean delta of the first positions points to {named}."
    nearest = ", ".join(
        f'"{visible(one.token)}"' for one in found.first[-len(found.first) // 2 :][:3]
    )
    return f"The mean delta of the first positions points to no token beyond {_beside(found)}" + (
        f"; nearest, at the last site: {nearest}." if nearest else "."
    )


def _beside(found: Read) -> str:
    return ADAPTER if found.nulls else "chance"


def _quoted(phrase: Phrase) -> str:
    return f'"{visible(phrase.text)}"'


def _of_nulls(phrase: Phrase) -> str:
    if not phrase.nulls:
        return "no null adapters"
    counts = ", ".join(map(str, phrase.nulls))
    return f"in {phrase.total} continuations, of null adapters in {counts}"


def _phrase(phrase: Phrase) -> dict[str, object]:
    nulls = ", ".join(map(str, phrase.nulls)) or "–"
    return {**vars(phrase), "nulls": nulls, "p": number(phrase.p), "q": number(phrase.q)}


def _occasion(one: Occasion) -> dict[str, object]:
    numbers = {key: number(value) for key, value in vars(one).items() if isinstance(value, float)}
    return {**vars(one), **numbers, "name": visible(one.name)}


def _word(word: ChangedToken) -> dict[str, object]:
    numbers = {key: number(value) for key, value in vars(word).items() if isinstance(value, float)}
    return {**vars(word), **numbers, "word": visible(word.word)}


def _by_prompt(found: Read) -> list[tuple[str, list[Sample]]]:
    """Of every prompt the base's and the adapter's own continuations."""
    rows: dict[str, list[Sample]] = {}
    for sample in found.samples:
        if sample.variant not in found.nulls:
            rows.setdefault(sample.prompt, []).append(sample)
    return list(rows.items())
