"""Behaviour kept against latents read and written: numbers of adapters, over seeds.

1. `sparsity_estimates`: how many latents an adapter reads and writes, and how flat its factors are.
2. `kept_estimates`: success of an adapter cut down to some latents, over the dense adapter's.
3. `overlap_estimates`: whether seeds choose the same latents.
4. `over_seeds`: the mean over seeds with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from scipy import stats

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.flatness import effective_number, of_random_rows, over_uniform
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.seeds import seeds_interval
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import (
    UNKNOWN,
    Interval,
    jackknife_interval,
    within,
)

READ, WRITTEN = "read", "written"
_TAIL = 0.025
Shown = Sequence[bool]


@torch.no_grad()
def sparsity_estimates(adapter: LatentAdapter, place: Key, seed: int = 0) -> list[Estimate]:
    """Latents read and written, and how flat each factor is (mean over ranks)."""
    n = adapter.dictionary.n_latents
    random = of_random_rows(n, generator(seed, "random rows", n))
    found = []
    for side, support, factor in zip(
        (READ, WRITTEN), adapter.support(), adapter.factors(), strict=True
    ):
        here = replace(place, dictionary=side)
        whole = Null.exact("all latents", float(n))
        found.append(
            Estimate("latent.used", float(len(support)), UNKNOWN, n, "latents", (whole,), here)
        )
        for measure, unit, name, value in (
            ("latent.effective", "latents", "effective", effective_number(factor)),
            ("latent.largest", "ratio", "largest", over_uniform(factor)),
        ):
            level, bounds = random[name]
            chance = Null("random direction", level, *bounds)
            found.append(Estimate(measure, float(value.mean()), UNKNOWN, n, unit, (chance,), here))
    return found


def kept_estimate(
    cut: Shown, dense: Shown, controls: Mapping[str, Shown], place: Key
) -> Estimate | None:
    """Success of an adapter cut down, over the dense adapter's, on the same prompts.

    None where the dense adapter has no success of which anything could be kept.

    Args:
        controls: {null: success}, the untouched model's or that of latents drawn at random.
        place: its setting names the size.
    """
    if not any(dense):
        return None
    chances = []
    for null, shown in controls.items():
        level, (low, high) = _ratio(shown, dense)
        bounds = (level, level) if math.isnan(low) else (low, high)
        chances.append(Null(null, level, *bounds))
    chances.sort(key=lambda chance: chance.high, reverse=True)
    value, interval = _ratio(cut, dense)
    return Estimate("latent.kept", value, interval, len(cut), "ratio", tuple(chances), place)


def overlap_estimates(
    supports: Mapping[str, Mapping[int, set[int]]], n: int, place: Key
) -> list[Estimate]:
    """Of latents chosen under two seeds, the share that is the same, mean over pairs of seeds.

    |S ∩ S′| / min(|S|, |S′|). Null: two random choices of these sizes out of n latents
    (hypergeometric); its bounds are those of one pair.

    Args:
        supports: {read or written: {seed: latents}}.
    """
    found = []
    for side, by_seed in supports.items():
        if len(by_seed) < 2 or not all(by_seed.values()):
            continue
        value, chance = _overlap(list(by_seed.values()), n)
        left_out = [
            _overlap([s for other, s in by_seed.items() if other != seed], n)[0]
            for seed in by_seed
            if len(by_seed) > 2
        ]
        interval = within(jackknife_interval(value, left_out), 0.0, 1.0)
        size = round(sum(map(len, by_seed.values())) / len(by_seed))
        here = replace(place, dictionary=side)
        found.append(Estimate("latent.overlap", value, interval, size, "share", (chance,), here))
    return found


def over_seeds(found: Sequence[Estimate]) -> list[Estimate]:
    """For numbers that differ in the seed alone, their mean with its interval (`measures.seeds`).

    Chance levels are means too, with the widest bounds of any seed. Numbers of one seed are left
    out.
    """
    groups: dict[tuple[str, Key], list[Estimate]] = {}
    for estimate in found:
        key = (estimate.measure, replace(estimate.key, seed=None))
        groups.setdefault(key, []).append(estimate)
    means = []
    for (_, place), several in groups.items():
        if len({estimate.key.seed for estimate in several}) < 2:
            continue
        values = [estimate.value for estimate in several]
        names = [chance.name for chance in several[0].nulls]
        chances = tuple(_mean_chance(name, several) for name in names)
        interval = seeds_interval(several[0].measure, values, several)
        interval = within(interval, *_BOUNDS.get(several[0].unit, _ANY))
        mean = replace(several[0], value=sum(values) / len(values), interval=interval)
        means.append(replace(mean, n=len(several), nulls=chances, key=place))
    return means


_ANY = (-math.inf, math.inf)
_BOUNDS = {"share": (0.0, 1.0), "ratio": (0.0, math.inf), "latents": (0.0, math.inf)}


def _mean_chance(null: str, several: Sequence[Estimate]) -> Null:
    same = [chance for estimate in several for chance in estimate.nulls if chance.name == null]
    level = sum(chance.level for chance in same) / len(same)
    return Null(null, level, min(c.low for c in same), max(c.high for c in same))


def _ratio(shown: Shown, dense: Shown) -> tuple[float, Interval]:
    """Ratio of two shares of the same prompts, and its interval over prompts."""
    both = torch.tensor([[float(a), float(b)] for a, b in zip(shown, dense, strict=True)])
    return ratio(both[:, 0], both[:, 1], torch.ones(len(both)))


def _overlap(sets: Sequence[set[int]], n: int) -> tuple[float, Null]:
    shares, levels, lows, highs = [], [], [], []
    for one, other in combinations(sets, 2):
        small = min(len(one), len(other))
        law = stats.hypergeom(n, len(one), len(other))
        shares.append(len(one & other) / small)
        levels.append(float(law.mean()) / small)
        lows.append(float(law.ppf(_TAIL)) / small)
        highs.append(float(law.ppf(1 - _TAIL)) / small)
    share, level, low, high = (sum(c) / len(c) for c in (shares, levels, lows, highs))
    return share, Null("random choice", level, low, high)
