"""An adapter with some of its latents taken away, to be attached and asked like any other.

A latent that is read is taken out of the stream, z_i d_i, before the adapter reads it: neither the
adapter nor the model after it sees it. What is written along latents that are written is taken off
the stream along others instead, or along the latents themselves.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.sparsity import Fixed


class Removed(LatentAdapter):
    """`adapter` with latents taken away; made by `without_reading` and `without_writing`.

    Attributes:
        gone: latents taken out of the stream before it is read.
        less: taken off what is written, for each rank where it reads 1.
    """

    gone: Int[Tensor, " latents"]
    less: Float[Tensor, "r d"]

    @classmethod
    @torch.no_grad()
    def of(cls, adapter: LatentAdapter) -> Removed:
        """The adapter as it is, nothing taken away yet."""
        read, write = adapter.factors()
        reads, writes = adapter.support()
        found = cls(adapter.dictionary, adapter.rank, Fixed(), latents=(reads, writes))
        found.read.copy_(read[:, reads])
        found.write.copy_(write[:, writes])
        found.scale.copy_(adapter.scale)
        found.card = adapter.card
        device = adapter.scale.device
        found.gone = torch.zeros(0, dtype=torch.long, device=device)
        found.less = torch.zeros(adapter.rank, adapter.dictionary.d_model, device=device)
        return found.to(device).requires_grad_(False)

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        """The stream without the latents that are gone, and with what the adapter writes."""
        read, write = self.factors()
        rows = x.reshape(-1, x.shape[-1])
        directions = self.dictionary.directions
        z = self.dictionary.encode(rows.to(directions.dtype)).to(read)
        removed = z[:, self.gone] @ directions[self.gone].to(z)
        z[:, self.gone] = 0
        change = z @ read.T @ (self.writing(write) - self.less.to(read)) - removed
        change = change.reshape(x.shape)
        if mask is not None:
            change = change * mask[..., None].to(change)
        return x + change.to(x.dtype)


def without_reading(adapter: LatentAdapter, taken: Int[Tensor, " n"]) -> Removed:
    """The latents `taken` are out of the stream before the adapter reads it."""
    found = Removed.of(adapter)
    found.gone = taken.to(adapter.scale.device)
    return found


def without_writing(
    adapter: LatentAdapter, named: Int[Tensor, " n"], along: Int[Tensor, " n"]
) -> Removed:
    """What is written along the `named` is taken off the stream along `along` instead."""
    found = Removed.of(adapter)
    found.less = amounts_along(adapter, named, along)
    return found


@torch.no_grad()
def amounts_along(
    adapter: LatentAdapter, named: Int[Tensor, " n"], along: Int[Tensor, " n"]
) -> Float[Tensor, "r d"]:
    """What each rank writes along `named` where it reads 1, turned to the directions of `along`."""
    _, write = adapter.factors()
    directions = adapter.dictionary.directions.to(write)
    norms = directions.norm(dim=1)
    size = norms[named] / norms[along].clamp(min=1e-12)
    found: Tensor = (adapter.scale[:, None] * write[:, named] * size) @ directions[along]
    return found
