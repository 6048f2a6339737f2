"""How often what is planted is found beside five null draws, as an audit draws them.

1. Directions: a share of a delta dictionary's latents lie at a cosine with base directions of the
   same width; null adapters' dictionaries are made alike without that.
2. Behaviour: an adapter makes every document's loss lower; null adapters change it a little.

Each scene has four conditions, which lend each other their spread (`measures.null_draws`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.geometry.cosine import max_cosine, unit_rows
from lorascope.geometry.subspaces import principal_angles, principal_subspace
from lorascope.measures.behaviour import response_loss
from lorascope.measures.null_draws import beside_draws
from lorascope.planted.shares import Share
from lorascope.randomness import generator
from lorascope.results import ADAPTER, Estimate, Key
from lorascope.results.labels import DELTA_VS_BASE

D: Final = 192
DRAWS, CONDITIONS = 5, 4
POWER: Final = 0.8
# The planted alignment that must be found.
SHARE, COSINE = 0.25, 0.9
_BASE, _LATENTS, _RANK, _K = 384, 128, 64, 48
GAINS: Final = (0.1, 0.03)
GAIN_DOCUMENTS: Final = (20, 57)

Directions = Float[Tensor, "n d"]


def alignment_shares(
    repeats: int, seed: int = 0, shares: tuple[float, ...] = (SHARE,)
) -> list[Share]:
    """How often planted alignment is found: max cosine above, mean angle below, its null draws.

    A quarter at a cosine of 0.9 must be found by the max cosine in 80 % of conditions; the mean
    angle has no bar.

    Args:
        repeats: scenes, of four conditions each.
        shares: of the delta's latents, how many are aligned.
    """
    found: list[Share] = []
    for low_rank in (False, True):
        for share in shares:
            for cosine in (COSINE,) if len(shares) == 1 else (0.7, COSINE):
                found += _aligned(share, cosine, low_rank, repeats, seed)
    return found


def _aligned(
    share: float, cosine: float, low_rank: bool, repeats: int, seed: int
) -> Iterator[Share]:
    wanted = {"max_cosine.mean": "above", "angle.mean": "below"}
    counts = dict.fromkeys(wanted, 0)
    for repeat in range(repeats):
        random = generator(seed, "power", share, cosine, low_rank, repeat)
        for estimate in _judged(_scene(share, cosine, low_rank, random)):
            if estimate.measure in wanted:
                counts[estimate.measure] += estimate.verdict == wanted[estimate.measure]
    kind = f"deltas of rank {_RANK}" if low_rank else "full-rank deltas"
    for measure, side in wanted.items():
        asked = measure == "max_cosine.mean" and (share, cosine) == (SHARE, COSINE)
        what = f"{measure} {side}, {share:.0%} at a cosine of {cosine:g}, {kind}"
        trials = CONDITIONS * repeats
        bar = POWER if asked else None
        yield Share("planted alignment", what, counts[measure], trials, bar, most=False)


def _scene(
    share: float, cosine: float, low_rank: bool, random: torch.Generator
) -> Iterator[Estimate]:
    """The numbers of planted dictionaries and of their null draws.

    Without intervals over latents, which play no part in a verdict beside draws.
    """
    root = torch.linspace(1.5, 0.5, D)
    base = unit_rows(root * torch.randn(_BASE, D, generator=random))
    reference = principal_subspace(base, _K)
    for condition in range(CONDITIONS):
        for draw in (None, *range(DRAWS)):
            planted = share if draw is None else 0.0
            directions = _delta(base, root, planted, cosine, low_rank, random)
            null = "" if draw is None else ADAPTER
            key = Key("planted", condition, null=null, draw=draw, **DELTA_VS_BASE._asdict())
            cosines, _ = max_cosine(directions, base)
            angles = principal_angles(principal_subspace(directions, _K), reference)
            for measure, unit, values in (
                ("max_cosine.mean", "cosine", cosines),
                ("angle.mean", "degrees", angles),
            ):
                value = float(values.double().mean())
                yield Estimate(measure, value, (value, value), len(values), unit, (), key)


def _delta(
    base: Directions,
    root: Tensor,
    share: float,
    cosine: float,
    low_rank: bool,
    random: torch.Generator,
) -> Directions:
    """Latents' directions: a share of them near base directions, the others anywhere.

    Of low rank: all lie in the span of a few directions, of which the share is near the base's;
    the aligned latents are these.
    """
    n = _RANK if low_rank else _LATENTS
    spanning = unit_rows(root * torch.randn(n, D, generator=random))
    aligned = round(share * n)
    if aligned:
        chosen = base[torch.randperm(len(base), generator=random)[:aligned]]
        across = spanning[:aligned] - (spanning[:aligned] * chosen).sum(1, True) * chosen
        spanning[:aligned] = cosine * chosen + (1 - cosine**2) ** 0.5 * unit_rows(across)
    if not low_rank:
        return spanning
    # As many latents of either kind as the share says; copies of an aligned one stand together.
    near = spanning[:aligned].repeat(-(-round(share * _LATENTS) // max(aligned, 1)), 1)
    mixed = torch.randn(_LATENTS - len(near), n, generator=random) @ spanning
    return torch.cat([near, unit_rows(mixed)])


def behaviour_shares(repeats: int, seed: int = 0) -> list[Share]:
    """How often a planted gain of the response loss is found: 0.1 nats/token must be.

    Documents have log-normal lengths, losses that differ between documents by a nat, and a gain
    that differs between them as much as it is large. Null adapters change the loss by 0.02.

    Args:
        repeats: scenes, of four conditions each.
    """
    found = []
    for gain in GAINS:
        for documents in GAIN_DOCUMENTS:
            below = 0
            for repeat in range(repeats):
                random = generator(seed, "behaviour", gain, documents, repeat)
                judged = _judged(_losses(gain, documents, random))
                below += sum(estimate.verdict == "below" for estimate in judged)
            what = f"response loss below, {gain:g} nats on {documents} documents"
            bar = POWER if gain == GAINS[0] else None
            trials = CONDITIONS * repeats
            found.append(Share("planted behaviour", what, below, trials, bar, most=False))
    return found


def _losses(gain: float, documents: int, random: torch.Generator) -> Iterator[Estimate]:
    def normal() -> Tensor:
        return torch.randn(documents, generator=random, dtype=torch.float64)

    tokens = (60 * (0.7 * normal()).exp()).round().clamp(min=2)
    base = tokens * (3 + normal()).clamp(min=0.5)
    for condition in range(CONDITIONS):
        for draw in (None, *range(DRAWS)):
            mean = -gain if draw is None else 0.02 * float(torch.randn(1, generator=random))
            spread = gain if draw is None else 0.02
            changed = base + tokens * (mean + spread * normal())
            null = "" if draw is None else ADAPTER
            key = Key("planted", condition, null=null, draw=draw)
            yield response_loss((base, tokens), (changed, tokens), key)


def _judged(estimates: Iterator[Estimate]) -> list[Estimate]:
    return [estimate for estimate in beside_draws(estimates) if estimate.key.draw is None]
