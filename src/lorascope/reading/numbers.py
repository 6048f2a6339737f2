"""The numbers of a reading, each beside the same number of its null adapters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.measures.paired_nulls import drawn, over_tokens
from lorascope.reading.changed import FirstZ
from lorascope.reading.passages import PARTS, PassageSurvey
from lorascope.reading.phrases import Texts, Voices, recurring, words_of
from lorascope.reading.settings import Reading
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.stats.documents import smooth, standard_error
from lorascope.stats.intervals import (
    MIN_DOCUMENTS,
    UNKNOWN,
    or_point,
    prediction_interval,
    t_quantile,
)


def recurring_share(voices: Voices, adapter: str, settings: Reading) -> Estimate:
    """Share of continuations that hold a phrase which comes back at other prompts.

    Phrases are found at every second prompt and counted at the others, and the other way round: a
    phrase is never counted where it was chosen. Null adapters take the adapter's place in turn.
    """
    variants = [voices, *(voices.exchanged(draw) for draw in range(len(voices.nulls)))]
    own, *nulls = (_held_out(one, settings) for one in variants)
    counts = torch.tensor([float(len(row)) for row in voices.own])
    mean = over_tokens(counts)
    value, interval = mean(own)
    beside = drawn(ADAPTER, own, nulls, mean)
    n = int(counts.sum())
    return Estimate("reading.recurring", value, interval, n, "share", tuple(beside), Key(adapter))


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

    def of(variant: str) -> tuple[float, tuple[float, float]]:
        columns = torch.cat([found.variants[variant].moved, found.tokens[:, None]], 1)
        return smooth(
            lambda sums: sums[:, :-1].abs().sum(1) / (2 * sums[:, -1]), columns, found.tokens
        )

    value, interval = of(adapter)
    levels = [of(variant)[0] for variant in nulls]
    n, unit = int(found.tokens.sum()), "share"
    return Estimate(
        *("reading.moved", value, interval, n, unit, _draws(value, interval, levels), Key(adapter))
    )


def _half_l1(sums: Float[Tensor, "repeats m"]) -> Float[Tensor, " repeats"]:
    """Sums of probability by word, then of positions."""
    return sums[:, :-1].abs().sum(1) / (2 * sums[:, -1])


def first_estimates(
    found: PassageSurvey, adapter: str, nulls: Sequence[str], known: FirstZ
) -> list[Estimate]:
    """The largest z of any token at each site; its interval leaves out one text at a time.

    A site whose stream the adapter leaves alone has none.

    Args:
        known: what `first_zs` gives.
    """
    estimates = []
    for site, deltas in found.variants[adapter].deltas.items():
        if not deltas.any():
            continue
        z = known[site, adapter]
        token = int(z[0].argmax())
        value, without = float(z[0, token]), z[1:, token].double()
        interval = UNKNOWN
        if len(without) >= MIN_DOCUMENTS and bool(without.var() > 0):
            half = t_quantile(len(without) - 1) * standard_error(without.tolist())
            interval = (value - half, value + half)
        levels = [float(known[site, variant][0].max()) for variant in nulls]
        key, n = Key(adapter, site=site.name), len(without)
        beside = _draws(value, interval, levels)
        estimates.append(Estimate("reading.first", value, interval, n, "z", beside, key))
    return estimates


def _draws(
    value: float, interval: tuple[float, float], levels: Sequence[float]
) -> tuple[Null, ...]:
    """Null adapters as further draws; no interval of the difference for a single one."""
    if not levels:
        return ()
    level = math.fsum(levels) / len(levels)
    bounds = prediction_interval(levels) if len(levels) > 1 else UNKNOWN
    low, high = or_point(level, bounds)
    gap = value - level
    down = math.hypot(value - interval[0], bounds[1] - level)
    up = math.hypot(interval[1] - value, level - bounds[0])
    apart = (gap - down, gap + up)
    return (Null(ADAPTER, level, low, high, difference=apart, draws=len(levels)),)
