"""Named latents that matter no more than others, or more by a planted factor.

A dictionary's latents have log-normal rates and strengths, and a KL over energy that has nothing to
do with either. The named ones are drawn among them; their alternatives are chosen, and p-values and
verdicts made, as for a latent adapter (`measures.matched_latents`).
"""

from __future__ import annotations

import torch

from lorascope.measures.matched_latents import ALTERNATIVES, Matched, beside_matched, most_alike
from lorascope.planted.shares import Share
from lorascope.randomness import generator
from lorascope.results import Estimate, Key

NAMED = (8, 16, 32)
LEVELS = (0.05, 0.5)
FALSE_RATE, POWER = 0.05, 0.8
# How many times as much as others of its kind a planted latent matters.
FACTOR = 20.0
_LATENTS, _ROWS = 256, 400
_SPREAD = 0.7


def exchangeable_shares(repeats: int, seed: int = 0) -> list[Share]:
    """False findings where named latents are like all others.

    Args:
        repeats: dictionaries for each number of named latents.
    """
    shares = []
    for n in NAMED:
        drawn = [_drawn(n, 1.0, n, generator(seed, "named", n, i)) for i in range(repeats)]
        part = f"exchangeable named latents, n = {n}"
        p = torch.stack([found.p for found in drawn])
        for level in LEVELS:
            what = f"rank p-values up to {level:g}"
            shares.append(Share(part, what, int((p <= level).sum()), p.numel(), level))
        any_q = sum(bool((found.q <= FALSE_RATE).any()) for found in drawn)
        shares.append(Share(part, "any latent at a q of 0.05", any_q, repeats, FALSE_RATE))
        apart = sum(_mean(found).apart for found in drawn)
        shares.append(Share(part, "mean KL apart from matched latents", apart, repeats, FALSE_RATE))
    return shares


def planted_latent_shares(repeats: int, seed: int = 0) -> list[Share]:
    """How often latents that matter twenty times as much as others are found.

    One of eight cannot be: with 40 alternatives the least p-value is 1/41, and 8/41 once adjusted.
    The verdict on the mean KL has no bar.
    """
    part = f"planted latents, {FACTOR:g} times the KL"
    shares = []
    for n, planted, bar in ((1, 1, POWER), (8, 8, POWER), (8, 1, None)):
        drawn = [
            _drawn(n, FACTOR, planted, generator(seed, "mattering", n, planted, i))
            for i in range(repeats)
        ]
        found = sum(int((one.q[:planted] <= FALSE_RATE).sum()) for one in drawn)
        what = f"{planted} of {n} named planted: at a q of 0.05"
        shares.append(Share(part, what, found, planted * repeats, bar, most=False))
        if planted == n > 1:
            above = sum(_mean(one).verdict == "above" for one in drawn)
            what = f"{planted} of {n} named planted: mean KL above matched latents"
            shares.append(Share(part, what, above, repeats, None, most=False))
    return shares


def _drawn(n: int, factor: float, planted: int, random: torch.Generator) -> Matched:
    rates = (-3 + torch.randn(_LATENTS, generator=random)).exp().clamp(0.01, 0.5)
    sizes = (0.5 * torch.randn(_LATENTS, generator=random)).exp()
    strengths = sizes * (0.2 * torch.randn(_ROWS, _LATENTS, generator=random)).exp()
    fires = torch.rand(_ROWS, _LATENTS, generator=random) < rates
    strengths = (strengths * fires).double()
    energy = strengths.square().mean(0)
    per_energy = (_SPREAD * torch.randn(_LATENTS, generator=random, dtype=torch.float64)).exp()
    firing = (energy > 0).nonzero().squeeze(1)
    latents = firing[torch.randperm(len(firing), generator=random)[:n]]
    per_energy[latents[:planted]] *= factor
    others = most_alike(strengths, latents, ALTERNATIVES)
    alternatives = torch.where(others >= 0, per_energy[others.clamp(min=0)], torch.nan)
    own = (per_energy * energy)[latents]
    return Matched(own, energy[latents], alternatives, latents, others)


def _mean(found: Matched) -> Estimate:
    place = Estimate("latent_ablation.kl", 0.0, (0.0, 0.0), len(found.kl), "nats/token", key=Key())
    return beside_matched(place, found)
