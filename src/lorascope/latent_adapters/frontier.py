"""Behaviour kept against latents read and written: numbers of adapters, over seeds.

1. `sparsity_estimates`: how many latents an adapter reads and writes, and how flat its factors are.
2. `kept_estimates`: success of an adapter cut down to some latents, over the dense adapter's.
3. `left_estimate`: success with named latents taken away, over success with all of them.
4. `overlap_estimates`: whether seeds choose the same latents.
5. `over_seeds`: the mean over seeds with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.flatness import effective_number, of_random_rows, over_uniform
from lorascope.measures.paired_nulls import drawn, over_tokens, scaled
from lorascope.measures.paired_shares import difference, mcnemar, ratio
from lorascope.randomness import derived_seed, generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import (
    OTHER_LATENTS,
    RANDOM_CHOICE,
    RANDOM_DIRECTION,
    RANDOM_LATENTS,
    UNTOUCHED,
)
from lorascope.results.seeds import pooled
from lorascope.stats.intervals import Interval, jackknife_interval, wilson_interval, within

READ, WRITTEN = "read", "written"
# Prompts that must show a behaviour before a share of them is said to be left.
LEAST_SHOWN = 10
# How often random choices are drawn for the law of their overlap.
_CHOICES = 2000
_ENDS = (2.5, 97.5)
Shown = Sequence[bool]


@torch.no_grad()
def sparsity_estimates(adapter: LatentAdapter, place: Key) -> list[Estimate]:
    """Latents read and written, and how flat each factor is (mean over ranks)."""
    n = adapter.dictionary.n_latents
    random = of_random_rows(n, generator(0, "random rows", n))
    found = []
    for side, support, factor in zip(
        (READ, WRITTEN), adapter.support(), adapter.factors(), strict=True
    ):
        here = replace(place, dictionary=side)
        count = float(len(support))
        whole = Null.exact("all latents", float(n))
        found.append(Estimate("latent.used", count, (count, count), n, "latents", (whole,), here))
        for measure, unit, name, values in (
            ("latent.effective", "latents", "effective", effective_number(factor)),
            ("latent.largest", "ratio", "largest", over_uniform(factor)),
        ):
            # Numbers of the adapter itself: nothing is sampled.
            value, (level, bounds) = float(values.mean()), random[name]
            chance = Null(RANDOM_DIRECTION, level, *bounds, rival=True)
            found.append(Estimate(measure, value, (value, value), n, unit, (chance,), here))
    return found


def kept_estimate(
    cut: Shown, dense: Shown, untouched: Shown, random: Sequence[Shown], place: Key
) -> Estimate | None:
    """Success of an adapter cut down, over the dense adapter's, on the same prompts.

    None where the dense adapter has no success of which anything could be kept; no interval, and
    so no verdict, where it has fewer than 8.

    Args:
        untouched: the untouched model's.
        random: of the dense adapter cut down to latents drawn at random, a draw each.
        place: its size says to how many latents; none for an adapter that is whole.
    """
    count, n = sum(dense), len(dense)
    if not count:
        return None
    nulls = [
        *random_draws(cut, random, count / n),
        share_over(UNTOUCHED, cut, untouched, count / n),
    ]
    return Estimate(
        "latent.kept", sum(cut) / count, ratio(cut, dense), n, "ratio", tuple(nulls), place
    )


def left_estimate(
    without: Shown, whole: Shown, others: Sequence[Shown], place: Key
) -> Estimate | None:
    """Success with all named latents of one side taken away, over success with none, on the same
    prompts.

    None where it is shown on fewer than ten prompts: of so few nothing is said to be left.

    Args:
        others: with as many matched latents taken away instead, a draw each.
    """
    count = sum(whole)
    if count < LEAST_SHOWN:
        return None
    nulls = random_draws(without, others, count / len(whole), OTHER_LATENTS)
    value, interval = sum(without) / count, ratio(without, whole)
    return Estimate("latent.left", value, interval, len(whole), "ratio", tuple(nulls), place)


def share_over(name: str, shown: Shown, other: Shown, unit: float) -> Null:
    """A rival whose share of the same prompts is given in units of a third share.

    The paired difference is Newcombe's, p McNemar's exact one; the unit counts as known.
    """
    n, count = len(other), sum(other)
    low, high = (end / unit for end in wilson_interval(count, n))
    apart = difference(shown, other)
    ends = (apart[0] / unit, apart[1] / unit)
    return Null(name, count / n / unit, low, high, True, ends, mcnemar(shown, other))


def random_draws(
    cut: Shown, random: Sequence[Shown], unit: float, name: str = RANDOM_LATENTS
) -> list[Null]:
    """The null of choices drawn at random, in units of a share; none without draws."""
    columns = [torch.tensor(shown, dtype=torch.float64) for shown in (cut, *random)]
    mean = over_tokens(torch.ones(len(cut)))
    found = drawn(name, columns[0], columns[1:], mean, rival=True)
    return [scaled(null, -unit) for null in found]


def overlap_estimates(
    supports: Mapping[str, Mapping[int, set[int]]],
    candidates: Mapping[str, Mapping[int, Sequence[int]]],
    place: Key,
    seed: int = 0,
) -> list[Estimate]:
    """Of latents chosen under two seeds, the share that is the same, mean over pairs of seeds.

    |S ∩ S′| / min(|S|, |S′|). Null: random choices of these sizes among what each seed's were
    chosen from, drawn for all seeds at once.

    Args:
        supports: {read or written: {seed: latents}}.
        candidates: {read or written: {seed: latents the choice was made from}}.
        seed: of the draws.
    """
    found = []
    for side, by_seed in supports.items():
        if len(by_seed) < 2 or not all(by_seed.values()):
            continue
        here = replace(place, dictionary=side)
        sets = list(by_seed.values())
        value = _overlap(sets)
        among = [np.array(sorted(candidates[side][one])) for one in by_seed]
        chance = _random_choice(value, sets, among, derived_seed(seed, "choices", here))
        size = round(sum(map(len, sets)) / len(sets))
        interval = _over_pairs(value, sets)
        found.append(Estimate("latent.overlap", value, interval, size, "share", (chance,), here))
    return found


def _overlap(sets: Sequence[set[int]]) -> float:
    shares = [len(a & b) / min(len(a), len(b)) for a, b in combinations(sets, 2)]
    return sum(shares) / len(shares)


def _over_pairs(value: float, sets: Sequence[set[int]]) -> Interval:
    """Delete-one-seed jackknife; of two seeds Wilson's over the latents of this one pair."""
    if len(sets) == 2:
        return wilson_interval(len(sets[0] & sets[1]), min(map(len, sets)))
    left_out = [_overlap([*sets[:i], *sets[i + 1 :]]) for i in range(len(sets))]
    return within(jackknife_interval(value, left_out), 0.0, 1.0)


def _random_choice(
    value: float, sets: Sequence[set[int]], among: Sequence[np.ndarray], seed: int
) -> Null:
    """The law of the overlap when every set is drawn from its candidates."""
    pairs = list(combinations(range(len(sets)), 2))
    sizes = [len(one) for one in sets]
    # Each latent that both may choose is in both sets with the product of their shares.
    level = sum(
        len(np.intersect1d(among[a], among[b]))
        * (sizes[a] / len(among[a]))
        * (sizes[b] / len(among[b]))
        / min(sizes[a], sizes[b])
        for a, b in pairs
    ) / len(pairs)
    random = np.random.default_rng(seed)
    values = np.empty(_CHOICES)
    for draw in range(_CHOICES):
        chosen = [
            set(ids[random.choice(len(ids), size, replace=False, shuffle=False)].tolist())
            for ids, size in zip(among, sizes, strict=True)
        ]
        values[draw] = _overlap(chosen)
    low, high = (float(end) for end in np.percentile(values, _ENDS, method="nearest"))
    tails = [(1 + (beyond).sum()) / (1 + _CHOICES) for beyond in (values >= value, values <= value)]
    p = min(1.0, 2 * float(min(tails)))
    apart = (value - high, value - low)
    return Null(RANDOM_CHOICE, level, low, high, True, apart, p, _CHOICES)


def over_seeds(found: Sequence[Estimate]) -> list[Estimate]:
    """For numbers that differ in the seed alone, their mean; numbers of one seed are left out."""
    return [one.estimate for one in pooled(found, {})]
