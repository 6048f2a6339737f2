"""Two adapters that do the same thing, and what `compare` lists as active under one alone.

Both write the same features on the same tokens, each along directions of its own, as two trainings
of the same data do. Their dictionaries hold every direction in ten near-copies. One may be stronger
throughout. Whatever is listed is false.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.measures.comparison import DeltaPair
from lorascope.measures.exclusive_latents import PairedActivity, activity, only_here
from lorascope.planted.shares import Share
from lorascope.randomness import generator

RATES: Final = (0.1, 0.2)
SLACK: Final = 0.02
COPIES: Final = 10
_D, _FEATURES, _DOCUMENTS, _LENGTH = 48, 32, 40, 30
_JITTER = 0.02


def search_shares(repeats: int, seed: int = 0) -> list[Share]:
    """How often anything is listed, at equal strengths and with one adapter twice as strong.

    With nothing different every list is false as a whole: the false discovery rate is the share of
    searches that list anything.

    Args:
        repeats: pairs of adapters at each strength; each is searched from both sides.
    """
    shares = []
    for times in (1.0, 2.0):
        pairs = [_activities(times, generator(seed, "search", times, i)) for i in range(repeats)]
        for rate in RATES:
            found = sum(
                bool(len(only_here([own], [other], rate).listed(0)))
                for first, second in pairs
                for own, other in ((first, second), (second, first))
            )
            strengths = "equal strengths" if times == 1 else "one twice as strong"
            what = f"any latent listed at a stated rate of {rate:g}, {strengths}"
            part = "only-here search, latents in ten copies"
            shares.append(Share(part, what, found, 2 * repeats, rate + SLACK))
    return shares


def _activities(times: float, random: torch.Generator) -> tuple[PairedActivity, PairedActivity]:
    n = _DOCUMENTS * _LENGTH
    ours, theirs = isotropic(2 * _FEATURES, _D, random).chunk(2)
    codes = 1 + torch.rand(n, _FEATURES, generator=random)
    codes = torch.where(torch.rand(codes.shape, generator=random) < 0.08, codes, 0.0)
    # Each adapter does each of it with a strength of its own.
    own, other = (1 + 0.3 * torch.randn(2, 1, _FEATURES, generator=random)).clamp(min=0.2)
    noise = 0.05 * torch.randn(2, n, _D, generator=random)
    first, second = times * ((own * codes) @ ours + noise[0]), (other * codes) @ theirs + noise[1]
    documents = torch.arange(_DOCUMENTS).repeat_interleave(_LENGTH)
    pair = DeltaPair(second, first, second, documents)
    mine, yours = (_copies(d, 0.5 * t, random) for d, t in ((ours, times), (theirs, 1.0)))
    return activity(mine, pair), activity(yours, pair.turned)


def _copies(
    directions: Float[Tensor, "features d"], threshold: float, random: torch.Generator
) -> ReluDictionary:
    """Every direction ten times over, nearly."""
    many = directions.repeat_interleave(COPIES, 0)
    many = many + _JITTER * torch.randn(many.shape, generator=random)
    bias = torch.full((len(many),), -threshold)
    return ReluDictionary(many.T.contiguous(), bias, many, torch.zeros(_D))
