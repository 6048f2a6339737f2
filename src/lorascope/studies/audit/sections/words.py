"""What the run found, in sentences made from the results table.

A sentence counts the conditions (adapter × site × seed) whose verdict says so beside every rival
null, gives the range of the number and of its chance level, and claims no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.report.conditions import VerdictTally, against_reference, measured, seeds
from lorascope.report.formatting import listing, number, plural, span
from lorascope.report.latents import Browsed
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.labels import (
    BASE,
    BASE_DIFFERENCE,
    BASE_SEEDS,
    DELTA,
    DELTA_SEEDS,
    DELTA_VS_BASE,
    EXACT_DELTA,
    Of,
)
from lorascope.studies.audit.sections.claims import count, ranges, said
from lorascope.studies.audit.sections.findings import Findings, judged
from lorascope.studies.audit.sections.opening import cautions, leads, live
from lorascope.studies.audit.sections.questions import (
    FirstQuestion,
    Shown,
    questions,
    shown_examples,
)
from lorascope.studies.audit.sections.reading_words import reading_sentences
from lorascope.studies.audit.sections.topics import TOPICS


@dataclass(frozen=True)
class Words:
    """The report's sentences.

    Attributes:
        scope: what was audited.
        overall: how much was found among the primary numbers, and how much a null adapter yields.
        questions: the first screen's, with their answers.
        shown: a prompt of each adapter, before and after.
        leads: titles and sentences of what was found, number by number.
        by_topic: every sentence of each topic, by the topic's key.
        cautions: what to beware of, empty when there is nothing.
    """

    scope: str
    overall: str
    questions: list[FirstQuestion]
    shown: list[Shown]
    leads: list[tuple[str, str]]
    by_topic: dict[str, list[str]]
    cautions: list[str]


def words(results: Results, browsed: Sequence[Browsed] = ()) -> Words:
    """Write the sentences for a run; topics without numbers have none.

    Args:
        browsed: its delta dictionaries' latents, where the strongest are to be told.
    """
    by_topic = {topic.key: _SENTENCES[topic.key](results) for topic in TOPICS}
    return Words(
        scope=_scope(results),
        overall=Findings.of(results).overall,
        questions=questions(results, live(results), browsed),
        shown=shown_examples(results),
        leads=leads(results, by_topic, browsed),
        by_topic=by_topic,
        cautions=cautions(results),
    )


def _scope(results: Results) -> str:
    adapters, runs = results.adapters, seeds(results)
    # A reading has numbers at sites of its own, which the audit does not look at.
    sites = results.facts.get("sites") or results.sites
    model = results.facts.get("model", {}).get("id", "the base model")
    seeded = f", {plural(len(runs), 'seed')}" if len(runs) > 1 else ""
    return (
        f"{plural(len(adapters), 'adapter')} ({listing(adapters)}) on {model}, read at "
        f"{plural(len(sites), 'site')} of the residual stream{seeded}."
    )


def _behaviour(results: Results) -> list[str]:
    rows = measured(results, "response_loss")
    if not rows:
        return []
    claim = "Held-out response loss falls below chance for"
    numbers = f"response loss in nats/token {ranges(rows)}"
    return [said(claim, rows, "below", numbers, "adapter")]


def _size(results: Results) -> list[str]:
    sentences = []
    rank = measured(results, "delta_rank")
    if rank:
        width = results.facts.get("model", {}).get("d_model")
        where = f"of the stream's {width} dimensions" if width else "dimensions"
        claim = f"The delta fills fewer {where} than chance in"
        sentences.append(said(claim, rank, "below", f"effective rank {ranges(rank)}"))
    norm = measured(results, "delta_norm")
    if norm:
        relative = measured(results, "delta_norm.relative")
        times = [row.value / row.chance for row in norm if row.chance > 0]
        part = f", {span(times)} times as large" if times else ""
        if relative:
            part += f"; its mean norm is {span(r.value for r in relative)} of the stream's"
        claim, numbers = "The delta is longer than chance in", f"mean norm {ranges(norm)}{part}"
        sentences.append(said(claim, norm, "above", numbers))
    return sentences


def _reconstruction(results: Results) -> list[str]:
    sentences = []
    error = {d: measured(results, "relative_error", Of(d)) for d in (BASE, DELTA)}
    for dictionary, rows in error.items():
        if rows:
            claim = f"The {dictionary} dictionary reconstructs the delta better than chance in"
            numbers = f"relative error of the {dictionary} dictionary {ranges(rows)}"
            sentences.append(said(claim, rows, "below", numbers))
    difference = measured(results, "relative_error", Of(BASE_DIFFERENCE))
    if difference:
        claim = (
            "Reading the delta as the difference of the base dictionary's two reconstructions is "
            "better than chance in"
        )
        numbers = f"relative error of the two reconstructions' difference {ranges(difference)}"
        sentences.append(said(claim, difference, "below", numbers))
    improvement = measured(results, "improvement")
    if improvement:
        claim = "A dictionary trained on the delta improves on the base dictionary by more than "
        numbers = f"improvement {ranges(improvement)}"
        sentences.insert(0, said(f"{claim}chance in", improvement, "above", numbers))
    return sentences


def _firing(results: Results) -> list[str]:
    sentences = []
    overlap = measured(results, "overlap")
    if overlap:
        claim = (
            "The base latents that the delta switches on are ones the base stream uses, more than "
            "chance, in"
        )
        sentences.append(said(claim, overlap, "above", f"overlap {ranges(overlap)}"))
    for dictionary in (BASE, DELTA):
        density = measured(results, "density", Of(dictionary))
        if density:
            tally, known = VerdictTally.of(density), judged(density)
            sentences.append(
                f"On the delta, the {dictionary} dictionary has {ranges(density)} active latents "
                "per token"
                + (
                    f": above chance in {tally.above}, below in {tally.below} and equal to it in "
                    f"{tally.equal} of {plural(len(known), 'condition')}."
                    if known
                    else "; no rival null."
                )
            )
    return sentences


def _cosine(results: Results) -> list[str]:
    rows = measured(results, "max_cosine.mean", DELTA_VS_BASE)
    if not rows:
        return []
    claim = "Delta directions lie closer to the base dictionary than chance in"
    lead = said(claim, rows, "above", f"mean max cosine {ranges(rows)}")
    closer = ("closer", "above"), ("farther", "below")
    return [lead, *_yardsticks(results, "max_cosine.mean", rows, "", closer)]


def _angles(results: Results) -> list[str]:
    rows = measured(results, "angle.mean", DELTA_VS_BASE)
    if not rows:
        return []
    claim = "The two dictionaries' leading subspaces are closer than chance in"
    lead = said(claim, rows, "below", f"mean principal angle in degrees {ranges(rows)}")
    closer = ("closer", "below"), ("farther apart", "above")
    return [lead, *_yardsticks(results, "angle.mean", rows, "°", closer)]


def _yardsticks(
    results: Results,
    measure: str,
    rows: list[Estimate],
    unit: str,
    sides: tuple[tuple[str, str], tuple[str, str]],
) -> list[str]:
    """Sentences that hold delta against base beside pairs that differ in their seed alone."""
    sentences = []
    base = measured(results, measure, BASE_SEEDS)
    if base:
        tally = against_reference(rows, base)
        counts = " and ".join(f"{word} in {getattr(tally, side)}" for word, side in sides)
        sentences.append(
            f"Two base dictionaries that differ only in their seed give "
            f"{span(r.value for r in base)}{unit}; delta against base is {counts} of "
            f"{plural(tally.total - tally.without, 'condition')} that have this yardstick."
        )
    delta = measured(results, measure, DELTA_SEEDS)
    if delta:
        sentences.append(
            "Two delta dictionaries that differ only in their seed give "
            f"{span(r.value for r in delta)}{unit}."
        )
    return sentences


def _cka(results: Results) -> list[str]:
    sentences = []
    debiased = measured(results, "cka_debiased.base_delta")
    if debiased:
        claim = "Base stream and delta resemble one another more than chance in"
        sentences.append(said(claim, debiased, "above", f"debiased CKA {ranges(debiased)}"))
    plain = measured(results, "cka.base_delta")
    if plain and plain[0].nulls:
        sentences.append(
            f"Plain CKA of the same pair is {ranges(plain)}; without a relation it is not 0 but "
            "as large as few rows and few directions of high variance make it."
        )
    return sentences


def _pursuit(results: Results) -> list[str]:
    sentences = []
    for dictionary in (BASE, DELTA):
        rows = measured(results, "pursuit.relative_error", Of(dictionary))
        if rows:
            claim = (
                f"With as many directions of the {dictionary} dictionary as the delta dictionary "
                "uses, chosen and fitted for each token, the delta is expressed better than chance "
                "in"
            )
            numbers = f"relative error of pursuit, {dictionary} dictionary, {ranges(rows)}"
            sentences.append(said(claim, rows, "below", numbers))
    gap = measured(results, "pursuit.gap", Of(BASE))
    if gap:
        sentences.append(
            f"Of the base dictionary's error, {span(row.value for row in gap)} is its encoder's: "
            "so much less remains with the same number of its own directions."
        )
    return sentences


def _not_apart(rows: Sequence[Estimate]) -> list[str]:
    """Which adapters' numbers do not leave their chance levels, and which these are."""
    same = [row for row in rows if row.verdict in ("equal", "not settled")]
    nulls = dict.fromkeys(null.name for row in same for null in row.rivals or row.nulls[:1])
    return [listing([row.key.adapter for row in same]), listing(list(nulls))] if same else []


def _greedy(rows: Sequence[Estimate]) -> list[str]:
    if not rows:
        return []
    told = "; {} no more and no fewer than {}".format(*same) if (same := _not_apart(rows)) else ""
    shares = span(100 * row.value for row in rows)
    return [f"Greedy decoding chooses another token at {shares} % of positions{told}."]


def _effects(results: Results) -> list[str]:
    sentences = []
    change = measured(results, "output_change.kl")
    if change:
        if silent := _not_apart(change):
            sentences.append("The change of the outputs of {} is not told from {}.".format(*silent))
        sentences.append(
            "The adapters move the next token's distribution by "
            f"{span(row.value for row in change)} nats/token of KL."
        )
    sentences += _greedy(measured(results, "output_change.greedy"))
    for measure, what in (("recovery.loss", "change of loss"), ("recovery.kl", "KL")):
        delta = measured(results, measure, Of(DELTA))
        if delta:
            exact, base = (measured(results, measure, Of(d)) for d in (EXACT_DELTA, BASE))
            sentences.insert(
                0,
                "Put into the base model at one site, the delta dictionary's reconstruction "
                f"brings back {span(row.value for row in delta)} of the adapter's {what}"
                + (
                    f", more than its rivals in {count(judged(delta), 'above')}"
                    if judged(delta)
                    else ""
                )
                + f"; the base dictionary's {span(row.value for row in base)}, the exact delta "
                f"{span(row.value for row in exact)}.",
            )
    return sentences


def _latents(results: Results) -> list[str]:
    sentences = []
    for mode, words_ in (("ablation", "Removing"), ("addition", "Adding")):
        rows = measured(results, f"latent_{mode}.kl")
        if not rows:
            continue
        claim = (
            f"{words_} one of the leading delta latents changes the predictions more than another "
            "of the same size in"
        )
        numbers = f"one latent changes predictions by {ranges(rows)} nats/token"
        sentence = said(claim, rows, "above", numbers)
        attributed = measured(results, f"latent_{mode}.loss_attributed")
        if attributed:
            sentence += (
                " The change of loss correlates with what its gradient foretells at "
                f"{span(row.value for row in attributed)}."
            )
        sentences.append(sentence)
    return sentences


def _weights(results: Results) -> list[str]:
    sentences = []
    intruders = measured(results, "weights.intruders")
    if intruders:
        claim = (
            "Of the leading singular vectors of the adapted weights, more are unlike any of the "
            "base's than chance in"
        )
        numbers = f"intruder dimensions a module {ranges(intruders)}"
        sentences.append(said(claim, intruders, "above", numbers))
    rank = measured(results, "weights.effective_rank")
    if rank:
        sentences.append(f"The updates' effective rank is {ranges(rank)}.")
    written = measured(results, "weights.written_cosine")
    if written:
        claim = (
            "The directions that modules write into the stream lie closer to base directions than "
            "chance in"
        )
        numbers = f"max cosine of directions written {ranges(written)}"
        sentences.append(said(claim, written, "above", numbers))
    return sentences


def _ablation(results: Results) -> list[str]:
    error = results.numbers.taken("ablation.relative_error")
    density = {e.key.setting: e for e in results.numbers.taken("ablation.density")}
    if not error:
        return []
    place = error[0].key
    ends = [e for e in (error[0], error[-1]) if e.key.setting in density]
    parts = listing(
        [
            f"{number(density[e.key.setting].value)} active latents and an error of "
            f"{number(e.value)} at {e.key.setting}"
            for e in ends
        ]
    )
    return [f"{place.adapter} at {place.site}: {parts}."]


def _seeds(results: Results) -> list[str]:
    rows = results.numbers.taken("variance.condition_share")
    if not rows:
        return []
    above = sum(row.verdict == "above" for row in rows)
    return [
        f"Of {plural(len(rows), 'number')} taken with several seeds, {above} differ between "
        "conditions by more than their seeds explain."
    ]


_SENTENCES: dict[str, Callable[[Results], list[str]]] = {
    "behaviour": _behaviour,
    "reading": reading_sentences,
    "size": _size,
    "reconstruction": _reconstruction,
    "pursuit": _pursuit,
    "firing": _firing,
    "cosine": _cosine,
    "angles": _angles,
    "cka": _cka,
    "effects": _effects,
    "latents": _latents,
    "weights": _weights,
    "ablation": _ablation,
    "seeds": _seeds,
}
