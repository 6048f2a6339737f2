"""An adapter that does only what some of its pairs do: latent read, latent written, weight.

A rank-1 adapter of 32 latents read and 32 written is a list of 1,024 relations. Cut down to a few
of them it has no two factors any more, so the pairs are held as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.latent_adapters.adapter import LatentAdapter, Relation
from lorascope.latent_adapters.reading import ActiveLatents
from lorascope.latent_adapters.sparsity import Fixed


class OnlyPairs(LatentAdapter):
    """`adapter` with some of its pairs and no others; made by `only`.

    Attributes:
        reads, writes: latents of the pairs, each once.
        weights: of reads × writes, 0 where no pair is.
    """

    reads: Int[Tensor, " i"]
    writes: Int[Tensor, " j"]
    weights: Float[Tensor, "i j"]

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        """The stream with what the pairs write, where `mask` is true."""
        directions = self.dictionary.directions
        rows = x.reshape(-1, x.shape[-1])
        z = self.dictionary.encode(rows.to(directions.dtype))[:, self.reads].to(self.weights)
        change = (z @ self.weights @ directions[self.writes].to(self.weights)).reshape(x.shape)
        if mask is not None:
            change = change * mask[..., None].to(change)
        return x + change.to(x.dtype)

    def written(self, codes: ActiveLatents) -> Float[Tensor, "rows d"]:
        """What the pairs write where these latents are active."""
        factor = torch.zeros(len(self.reads), self.dictionary.n_latents)
        factor[torch.arange(len(self.reads)), self.reads.cpu()] = 1.0
        read = codes.read(factor).to(self.weights)
        found: Tensor = read @ self.weights @ self.dictionary.directions[self.writes].to(read)
        return found


@torch.no_grad()
def only(adapter: LatentAdapter, pairs: Sequence[Relation]) -> OnlyPairs:
    """The adapter with these pairs alone."""
    found = OnlyPairs(adapter.dictionary, adapter.rank, Fixed(), latents=adapter.support())
    reads, writes = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
    weights = torch.zeros(len(reads), len(writes))
    for pair in pairs:
        weights[reads.index(pair.read), writes.index(pair.written)] = pair.weight
    device = adapter.scale.device
    found.reads = torch.tensor(reads, dtype=torch.long, device=device)
    found.writes = torch.tensor(writes, dtype=torch.long, device=device)
    found.weights = weights.to(device)
    found.card = adapter.card
    return found.to(device).requires_grad_(False)
