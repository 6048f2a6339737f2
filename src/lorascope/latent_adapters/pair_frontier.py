"""Behaviour and effect that an adapter's heaviest pairs keep, beside random ones of its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.latent_adapters.adapter import LatentAdapter, Relation
from lorascope.latent_adapters.frontier import Shown, random_draws, share_over
from lorascope.latent_adapters.pairs import only
from lorascope.latent_adapters.reading import ActiveLatents
from lorascope.measures.paired_shares import ratio
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NOTHING_WRITTEN, RANDOM_PAIRS, UNTOUCHED
from lorascope.stats.intervals import prediction_interval


def heaviest(adapter: LatentAdapter, most: int) -> list[Relation]:
    """Its pairs of largest |weight|."""
    return adapter.pairs(most)


def drawn(adapter: LatentAdapter, most: int, seed: int, draw: int) -> list[Relation]:
    """As many of its pairs at random."""
    pairs = adapter.pairs(None)
    random = generator(seed, "drawn pairs", most, draw)
    return [pairs[i] for i in torch.randperm(len(pairs), generator=random)[:most].tolist()]


def kept_pairs(
    cut: Shown, dense: Shown, untouched: Shown, random: Sequence[Shown], place: Key
) -> Estimate | None:
    """Success of the heaviest pairs over the dense adapter's, on the same prompts.

    None where the dense adapter has no success.

    Args:
        random: of as many pairs drawn at random, a draw each.
        place: its size says how many pairs.
    """
    count, n = sum(dense), len(dense)
    if not count:
        return None
    nulls = [
        *random_draws(cut, random, count / n, RANDOM_PAIRS),
        share_over(UNTOUCHED, cut, untouched, count / n),
    ]
    value, interval = sum(cut) / count, ratio(cut, dense)
    return Estimate("latent.kept_pairs", value, interval, n, "ratio", tuple(nulls), place)


@torch.no_grad()
def carried_estimates(
    whole: LatentAdapter,
    cut: LatentAdapter,
    codes: ActiveLatents,
    sizes: Sequence[int],
    draws: int,
    place: Key,
) -> list[Estimate]:
    """Share of what the whole adapter writes that the heaviest pairs of the cut one write.

    Args:
        codes: latents active on the tokens it acts on.
        sizes: numbers of pairs; more than there are count as all of them.
        draws: random choices of as many pairs.
    """
    read, write = whole.factors()
    effect = codes.read(read.cpu()) @ whole.writing(write).cpu()
    total = len(cut.pairs(None))
    found = []
    for size in dict.fromkeys(min(size, total) for size in sizes if total):
        value = _share(effect, cut, heaviest(cut, size), codes)
        levels = [
            _share(effect, cut, drawn(cut, size, place.seed or 0, draw), codes)
            for draw in range(draws if size < total else 0)
        ]
        nulls = [Null.exact(NOTHING_WRITTEN, 0.0)]
        if len(levels) > 1:
            low, high = prediction_interval(levels)
            level = sum(levels) / len(levels)
            random = Null(RANDOM_PAIRS, level, low, high, rival=True, draws=len(levels))
            nulls = [random, *nulls]
        here = replace(place, size=size)
        one = (value, value)
        found.append(
            Estimate("latent.carried", value, one, len(effect), "share", tuple(nulls), here)
        )
    return found


def _share(
    effect: Float[Tensor, "rows d"],
    adapter: LatentAdapter,
    pairs: Sequence[Relation],
    codes: ActiveLatents,
) -> float:
    missed = effect - only(adapter, pairs).to("cpu").written(codes)
    return 1 - float(missed.double().square().sum() / effect.double().square().sum().clamp(1e-30))
