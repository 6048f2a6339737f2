"""What the run found, in sentences made from the results table.

A sentence counts the conditions (adapter × site × seed) whose 95 % interval lies apart from 95 % of
the headline null, gives the range of the number and of its chance level, and claims no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.report.conditions import Tally, against_reference, measured, seeds
from lorascope.report.formatting import listing, number, plural, share, span
from lorascope.report.latents import Browsed
from lorascope.report.opening import cautions, headline_numbers, leads
from lorascope.report.result import Results
from lorascope.report.topics import TOPICS
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


@dataclass(frozen=True)
class Words:
    """The report's sentences.

    Attributes:
        scope: what was audited.
        overall: how much stands apart from chance; empty where nothing has a chance level.
        leads: titles and sentences of the first screen.
        by_topic: every sentence of each topic, by the topic's key.
        cautions: what to beware of, empty when there is nothing.
    """

    scope: str
    overall: str
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
        overall=_overall(results),
        leads=leads(results, by_topic, browsed),
        by_topic=by_topic,
        cautions=cautions(results),
    )


def _scope(results: Results) -> str:
    adapters, sites, runs = results.adapters, results.sites, seeds(results)
    model = results.facts.get("model", {}).get("id", "the base model")
    seeded = f", {plural(len(runs), 'seed')}" if len(runs) > 1 else ""
    return (
        f"{plural(len(adapters), 'adapter')} ({listing(adapters)}) on {model}, read at "
        f"{plural(len(sites), 'site')} of the residual stream{seeded}."
    )


def _overall(results: Results) -> str:
    rows = headline_numbers(results)
    if not rows:
        return ""
    apart = sum(estimate.apart for estimate in rows)
    unsettled = sum(estimate.verdict == "not settled" for estimate in rows)
    more = f"; {unsettled} more may, with more data" if unsettled else ""
    if apart == 0:
        return (
            f"Nothing stands apart from chance: {len(rows)} headline numbers, none of them apart."
        )
    return f"{apart} of {len(rows)} headline numbers stand apart from their chance level{more}."


def _ranges(rows: Sequence[Estimate]) -> str:
    text = span(row.value for row in rows)
    chances = [row.chance for row in rows if row.nulls]
    if not chances:
        return text
    nulls = listing(
        list(dict.fromkeys(row.headline.name for row in rows if row.headline is not None))
    )
    return f"{text} against chance {span(chances)} ({nulls})"


def _count(rows: Sequence[Estimate], side: str) -> str:
    tally = Tally.of(rows)
    text = share(getattr(tally, side), tally.total)
    other = "above" if side == "below" else "below"
    opposite = getattr(tally, other)
    return f"{text}, on the other side of chance in {opposite}" if opposite else text


def _behaviour(results: Results) -> list[str]:
    rows = measured(results, "response_loss")
    if not rows:
        return []
    below = Tally.of(rows).below
    best = min(rows, key=lambda row: row.value)
    sentence = (
        f"Held-out response loss falls below the base model's for "
        f"{share(below, len(rows), 'adapter')}: {span(row.value for row in rows)} against "
        f"{span(row.chance for row in rows)} nats/token"
    )
    lowest = f"; {best.key.adapter} is lowest" if len(rows) > 1 and below else ""
    return [f"{sentence}{lowest}."]


def _size(results: Results) -> list[str]:
    sentences = []
    norm = measured(results, "delta_norm")
    if norm:
        relative = measured(results, "delta_norm.relative")
        times = [row.value / row.chance for row in norm if row.chance > 0]
        part = f", {span(times)} times as large" if times else ""
        if relative:
            part += f"; its mean norm is {span(r.value for r in relative)} of the stream's"
        sentences.append(
            f"The delta is above the numeric noise floor in {_count(norm, 'above')}{part}."
        )
    rank = measured(results, "delta_rank")
    if rank:
        width = results.facts.get("model", {}).get("d_model")
        where = f"of the stream's {width} dimensions" if width else "dimensions"
        sentences.append(
            f"The delta fills fewer {where} than chance in {_count(rank, 'below')}: "
            f"effective rank {_ranges(rank)}."
        )
    return sentences


def _reconstruction(results: Results) -> list[str]:
    sentences = []
    error = {d: measured(results, "relative_error", Of(d)) for d in (BASE, DELTA)}
    for dictionary, rows in error.items():
        if rows:
            sentences.append(
                f"The {dictionary} dictionary reconstructs the delta better than chance in "
                f"{_count(rows, 'below')}: relative error {_ranges(rows)}."
            )
    difference = measured(results, "relative_error", Of(BASE_DIFFERENCE))
    if difference:
        sentences.append(
            "Reading the delta as the difference of the base dictionary's two reconstructions "
            f"is better than chance in {_count(difference, 'below')}: relative error "
            f"{_ranges(difference)}."
        )
    improvement = measured(results, "improvement")
    if improvement:
        sentences.insert(
            0,
            "A dictionary trained on the delta improves on the base dictionary by more than "
            f"chance in {_count(improvement, 'above')}: improvement {_ranges(improvement)}.",
        )
    return sentences


def _firing(results: Results) -> list[str]:
    sentences = []
    overlap = measured(results, "overlap")
    if overlap:
        sentences.append(
            "The base latents that the delta switches on are ones the base stream uses, more than "
            f"chance, in {_count(overlap, 'above')}: overlap {_ranges(overlap)}."
        )
    for dictionary in (BASE, DELTA):
        density = measured(results, "density", Of(dictionary))
        if density:
            tally = Tally.of(density)
            sentences.append(
                f"On the delta, the {dictionary} dictionary has {_ranges(density)} active latents "
                f"per token: above chance in {tally.above}, equal to it in {tally.equal} and below "
                f"in {tally.below} of {plural(tally.total, 'condition')}."
            )
    return sentences


def _cosine(results: Results) -> list[str]:
    rows = measured(results, "max_cosine.mean", DELTA_VS_BASE)
    if not rows:
        return []
    lead = (
        "Delta directions lie closer to the base dictionary than chance in "
        f"{_count(rows, 'above')}: mean max cosine {_ranges(rows)}."
    )
    closer = ("closer", "above"), ("farther", "below")
    return [lead, *_yardsticks(results, "max_cosine.mean", rows, "", closer)]


def _angles(results: Results) -> list[str]:
    rows = measured(results, "angle.mean", DELTA_VS_BASE)
    if not rows:
        return []
    lead = (
        "The two dictionaries' leading subspaces are closer than chance in "
        f"{_count(rows, 'below')}: mean principal angle in degrees {_ranges(rows)}."
    )
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
        sentences.append(
            "Base stream and delta resemble one another more than chance in "
            f"{_count(debiased, 'above')}: debiased CKA {_ranges(debiased)}."
        )
    plain = measured(results, "cka.base_delta")
    if plain and plain[0].nulls:
        chance = max(row.chance for row in plain)
        sentences.append(
            f"Plain CKA of the same pair is {_ranges(plain)}; its chance level, up to "
            f"{number(chance)}, is the estimator's own bias."
        )
    return sentences


def _pursuit(results: Results) -> list[str]:
    sentences = []
    for dictionary in (BASE, DELTA):
        rows = measured(results, "pursuit.relative_error", Of(dictionary))
        if rows:
            sentences.append(
                f"With as many directions of the {dictionary} dictionary as the delta dictionary "
                "uses, chosen and fitted for each token, the delta is expressed better than chance "
                f"in {_count(rows, 'below')}: relative error {_ranges(rows)}."
            )
    gap = measured(results, "pursuit.gap", Of(BASE))
    if gap:
        sentences.append(
            f"Of the base dictionary's error, {span(row.value for row in gap)} is its encoder's: "
            "so much less remains with the same number of its own directions."
        )
    return sentences


def _greedy(rows: Sequence[Estimate]) -> list[str]:
    if not rows:
        return []
    same = [row.key.adapter for row in rows if not row.apart]
    told = f"; {listing(same)} cannot be told from the base by it" if same else ""
    shares = span(100 * row.value for row in rows)
    return [f"Greedy decoding chooses another token at {shares} % of positions{told}."]


def _effects(results: Results) -> list[str]:
    sentences = []
    change = measured(results, "output_change.kl")
    if change:
        silent = [row for row in change if not row.apart]
        if silent:
            names = listing([row.key.adapter for row in silent])
            sentences.append(f"The outputs of {names} equal the base model's within numeric noise.")
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
                f"brings back {span(row.value for row in delta)} of the adapter's {what}, "
                f"more than its controls in {_count(delta, 'above')}; the base dictionary's "
                f"{span(row.value for row in base)}, the exact delta "
                f"{span(row.value for row in exact)}.",
            )
    return sentences


def _latents(results: Results) -> list[str]:
    sentences = []
    for mode, words_ in (("ablation", "Removing"), ("addition", "Adding")):
        rows = measured(results, f"latent_{mode}.kl")
        if not rows:
            continue
        sentence = (
            f"{words_} one of the leading delta latents changes the predictions more than another "
            f"direction of the same size in {_count(rows, 'above')}: {_ranges(rows)} nats/token"
        )
        foretold = measured(results, f"latent_{mode}.loss_foretold")
        if foretold:
            sentence += (
                "; the change of loss correlates with what its gradient foretells at "
                f"{span(row.value for row in foretold)}"
            )
        sentences.append(f"{sentence}.")
    return sentences


def _weights(results: Results) -> list[str]:
    sentences = []
    intruders = measured(results, "weights.intruders")
    if intruders:
        sentences.append(
            "Of the ten leading singular vectors of the adapted weights, more are unlike any of "
            f"the base's than chance for {_count(intruders, 'above')}: {_ranges(intruders)} a "
            "module."
        )
    rank = measured(results, "weights.effective_rank")
    if rank:
        sentences.append(f"The updates' effective rank is {_ranges(rank)}.")
    written = measured(results, "weights.written_cosine")
    if written:
        sentences.append(
            "The directions that modules write into the stream lie closer to base directions than "
            f"chance in {_count(written, 'above')}: {_ranges(written)}."
        )
    return sentences


def _ablation(results: Results) -> list[str]:
    error = results.numbers.select("ablation.relative_error")
    density = {e.key.setting: e for e in results.numbers.select("ablation.density")}
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
    rows = results.numbers.select("variance.condition_share")
    if not rows:
        return []
    above = sum(row.verdict == "above" for row in rows)
    return [
        f"Of {plural(len(rows), 'number')} taken with several seeds, {above} differ between "
        "conditions by more than their seeds explain."
    ]


_SENTENCES: dict[str, Callable[[Results], list[str]]] = {
    "behaviour": _behaviour,
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
