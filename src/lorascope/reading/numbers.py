"""The numbers of a reading, each beside the same number of its null adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.measures.paired_nulls import Measured, Sums, added, drawn, over_tokens
from lorascope.models.sites import Site
from lorascope.reading.changed import FirstZ
from lorascope.reading.passages import PARTS, PassageSurvey
from lorascope.reading.phrases import Texts, Voices, recurring, words_of
from lorascope.reading.settings import Reading
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.stats.documents import standard_error, weighed
from lorascope.stats.intervals import (
    MIN_DOCUMENTS,
    UNKNOWN,
    Interval,
    or_point,
    prediction_interval,
    t_quantile,
    wilson_interval,
)


def recurring_share(voices: Voices, adapter: str, settings: Reading) -> Estimate:
    """Share of continuations that hold a phrase which comes back at other prompts.

    Phrases are found at every second prompt and counted at the others, and the other way round: a
    phrase is never counted where it was chosen. Null adapters take the adapter's place in turn.
    """
    variants = [voices, *(voices.exchanged(draw) for draw in range(len(voices.nulls)))]
    own, *nulls = (_held_out(one, settings) for one in variants)
    counts = torch.tensor([float(len(row)) for row in voices.own])
    mean = share_of_prompts(counts)
    value, (low, high) = mean(own)
    beside = drawn(ADAPTER, own, nulls, mean)
    n, interval = int(counts.sum()), (max(0.0, low), min(1.0, high))
    return Estimate("reading.recurring", value, interval, n, "share", tuple(beside), Key(adapter))


def share_of_prompts(counts: Sums) -> Callable[[Sums], Measured]:
    """`over_tokens` of continuations by prompt, where prompts that are all alike leave some open.

    None of n prompts, or all of them, says little of the next: as far as Wilson's interval of
    0 of n reaches.
    """
    mean = over_tokens(counts)

    def share(sums: Sums) -> Measured:
        value, interval = mean(sums)
        if interval[0] == interval[1]:
            reach = wilson_interval(0, len(counts))[1]
            interval = (value - reach, value + reach)
        return value, interval

    return share


def _held_out(voices: Voices, settings: Reading) -> Float[Tensor, " prompts"]:
    """Of each prompt, the continuations that hold a phrase found at the other half's."""
    hits = torch.zeros(len(voices.own))
    halves = (range(0, len(hits), 2), range(1, len(hits), 2))
    for chosen, counted in (halves, halves[::-1]):
        phrases = [f" {one.text} " for one in recurring(_some(voices, chosen), settings)]
        for prompt in counted:
            said = (f" {' '.join(words_of(text))} " for text in voices.own[prompt])
            hits[prompt] = sum(any(phrase in text for phrase in phrases) for text in said)
    return hits


def _some(voices: Voices, prompts: Sequence[int]) -> Voices:
    def of(texts: Texts) -> Texts:
        return [texts[prompt] for prompt in prompts]

    nulls, others = tuple(map(of, voices.nulls)), tuple(map(of, voices.others))
    return Voices(of(voices.own), nulls, of(voices.base), others)


def passage_estimates(found: PassageSurvey, adapter: str, nulls: Sequence[str]) -> list[Estimate]:
    """KL on ordinary text, in all and by part of the text, and the probability that moves."""
    estimates = [_kl(found, adapter, nulls, None)]
    if found.tokens_at is not None:
        estimates += [_kl(found, adapter, nulls, part) for part in range(len(PARTS))]
    return [*(one for one in estimates if one.n), _moved(found, adapter, nulls)]


def _kl(found: PassageSurvey, adapter: str, nulls: Sequence[str], part: int | None) -> Estimate:
    tokens = found.tokens if part is None else _part(found.tokens_at, part)

    def of(variant: str) -> Tensor:
        passed = found.variants[variant]
        return passed.kl if part is None else _part(passed.kl_at, part)

    mean = over_tokens(tokens)
    value, interval = mean(of(adapter))
    beside = drawn(ADAPTER, of(adapter), [of(variant) for variant in nulls], mean)
    key = Key(adapter, setting="" if part is None else _told(*PARTS[part]))
    unit = "nats/token"
    return Estimate("reading.kl", value, interval, int(tokens.sum()), unit, tuple(beside), key)


def _part(columns: Tensor | None, part: int) -> Tensor:
    assert columns is not None
    return columns[:, part]


def _told(first: int, last: int | None) -> str:
    return f"from position {first}" + ("" if last is None else f" to {last}")


def _moved(found: PassageSurvey, adapter: str, nulls: Sequence[str]) -> Estimate:
    """Half the L1 distance between mean next-token probabilities, with and without the adapter."""

    def of(variant: str) -> tuple[float, Tensor]:
        columns = torch.cat([found.variants[variant].moved, found.tokens[:, None]], 1).cpu()
        rows = weighed(columns.double(), found.tokens)
        whole = rows.sum(0)
        return float(_half_l1(whole[None])[0]), _half_l1(whole - rows)

    n = int(found.tokens.sum())
    return _beside("reading.moved", of(adapter), list(map(of, nulls)), n, "share", Key(adapter))


def _half_l1(sums: Float[Tensor, "repeats m"]) -> Float[Tensor, " repeats"]:
    """Sums of probability by word, then of positions."""
    return sums[:, :-1].abs().sum(1) / (2 * sums[:, -1])


def first_estimates(
    found: PassageSurvey, adapter: str, nulls: Sequence[str], known: FirstZ
) -> list[Estimate]:
    """The largest z of any token at each site; its interval leaves out one text at a time.

    A site whose stream the adapter leaves alone has none. Of null adapters the z alone is known:
    without each text in turn theirs would take as much memory as the adapter's, each.

    Args:
        known: what `first_zs` gives.
    """
    estimates = []
    for site, deltas in found.variants[adapter].deltas.items():
        if not deltas.any():
            continue

        def of(variant: str, site: Site = site) -> tuple[float, Tensor]:
            z = known[site, variant]
            token = int(z[0].argmax())
            return float(z[0, token]), z[1:, token].double()

        whole = of(adapter)
        key, n = Key(adapter, site=site.name), len(whole[1])
        beside = list(map(of, nulls))
        estimates.append(_beside("reading.first", whole, beside, n, "z", key))
    return estimates


def _beside(
    measure: str,
    own: tuple[float, Tensor],
    nulls: Sequence[tuple[float, Tensor]],
    n: int,
    unit: str,
    key: Key,
) -> Estimate:
    """A number beside null adapters on the same texts, each with its values without one text.

    Where the null adapters' values without one text are not known, theirs are taken to be fixed.
    """
    value, without = own
    interval = _jackknife(value, without)
    if not nulls:
        return Estimate(measure, value, interval, n, unit, (), key)
    levels = [level for level, _ in nulls]
    level = math.fsum(levels) / len(levels)
    bounds = prediction_interval(levels) if len(levels) > 1 else UNKNOWN
    gap = value - level
    known = [one for _, one in nulls if len(one) == len(without)]
    theirs = torch.stack(known).mean(0) if len(known) == len(nulls) else level
    over_texts = _jackknife(gap, without - theirs)
    apart = added(gap, over_texts, (gap - (bounds[1] - level), gap + (level - bounds[0])))
    low, high = or_point(level, bounds)
    null = Null(ADAPTER, level, low, high, difference=apart, draws=len(levels))
    return Estimate(measure, value, interval, n, unit, (null,), key)


def _jackknife(value: float, without: Float[Tensor, " texts"]) -> Interval:
    if len(without) < MIN_DOCUMENTS or not bool(without.var() > 0):
        return UNKNOWN
    half = t_quantile(len(without) - 1) * standard_error(without.tolist())
    return value - half, value + half
