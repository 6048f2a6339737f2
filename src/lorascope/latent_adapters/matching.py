"""Unnamed latents that fire as often as a named one, and write as much where they do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite, Seen
from lorascope.randomness import generator


def matched(
    reading: FrozenSite, seen: Sequence[Seen], named: Int[Tensor, " n"], most: int
) -> Int[Tensor, "n k"]:
    """For each named latent the unnamed ones most like it on some records, nearest first.

    Likeness is |log of the ratio of firing rates| + |log of the ratio of mean ‖z_i d_i‖ where they
    fire|. k is `most`, or all unnamed latents where there are fewer.
    """
    rate, norm = _rates_and_norms(reading, seen)
    free = torch.ones(len(rate), dtype=torch.bool)
    free[named.cpu()] = False
    candidates = free.nonzero().squeeze(1)
    k = min(most, len(candidates))
    points = torch.stack([rate, norm], 1).log()
    apart = torch.cdist(points[named.cpu()], points[candidates], p=1)
    nearest = apart.argsort(dim=1, stable=True)[:, :k]
    return candidates[nearest].to(named.device)


def _rates_and_norms(
    reading: FrozenSite, seen: Sequence[Seen]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How often each latent fires and how much it writes then; of a silent one next to nothing."""
    codes, n = ActiveLatents.together([one.codes for one in seen]), reading.dictionary.n_latents
    latent = codes.latent.long()
    fired = torch.bincount(latent, minlength=n).double()
    total = torch.zeros(n, dtype=torch.float64).index_add_(0, latent, codes.value.double())
    norms = reading.dictionary.directions.detach().norm(dim=1).cpu().double()
    written = total / fired.clamp(min=1) * norms
    rate = (fired + 0.5) / (len(codes.counts) + 1)
    least = written[written > 0].min() if bool((written > 0).any()) else torch.tensor(1.0)
    return rate, written.clamp(min=float(least))


def one_each(alternatives: Int[Tensor, "n k"], seed: int, draw: int) -> Int[Tensor, " n"]:
    """One alternative for each named latent, drawn at random; none twice while there are others."""
    random = generator(seed, "alternatives", draw)
    taken: set[int] = set()
    chosen = []
    for row in alternatives.tolist():
        order = torch.randperm(len(row), generator=random).tolist()
        fresh = [row[i] for i in order if row[i] not in taken]
        chosen.append(fresh[0] if fresh else row[order[0]])
        taken.add(chosen[-1])
    return torch.tensor(chosen, dtype=torch.long, device=alternatives.device)
