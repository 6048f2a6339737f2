"""Baseline dictionaries without features, against which every number is compared.

A *random-decoder dictionary* has as many latents as the one evaluated, directions drawn evenly from
the sphere, and the encoder is their transpose: z = the k largest entries of max(0, (x − m) Wᵀ),
x̂ = m + a z W, with m the training rows' mean, k the evaluated dictionary's mean L0 rounded, and the
one scale a that reconstructs the training rows best. It knows the stream's mean and scale, and no
feature.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.measures.rows import chunks
from lorascope.randomness import generator

# Rows the scale is found on.
_ROWS = 4096


@torch.no_grad()
def random_decoder(
    like: Dictionary, rows: Float[Tensor, "rows d"], l0: float, seed: int, *names: object
) -> TopKDictionary:
    """A random-decoder dictionary of the size and sparsity of another.

    Args:
        like: the dictionary that is evaluated; its number of latents and its device are taken.
        rows: training rows of the stream it reads.
        l0: mean active latents a row of `like`.
        seed, names: the same draw for the same.
    """
    device = like.directions.device
    random = generator(seed, "random decoder", *names)
    directions = torch.randn(like.n_latents, like.d_model, generator=random)
    directions = (directions / directions.norm(dim=1, keepdim=True)).to(device)
    mean = rows.double().mean(0).float().to(device)
    k = min(like.n_latents, max(1, round(l0)))

    def made(scale: float) -> TopKDictionary:
        bias = torch.zeros(like.n_latents, device=device)
        parts = (directions.T.clone(), bias, scale * directions, mean)
        return TopKDictionary(*parts, k=k, card=Card(note="random decoder"))

    unit = made(1.0)
    above = below = 0.0
    for chunk in chunks(rows[:_ROWS].float()):
        chunk = chunk.to(device)
        written = unit(chunk) - mean
        above += float((written * (chunk - mean)).double().sum())
        below += float(written.double().square().sum())
    return made(above / below if below > 0 else 1.0)
