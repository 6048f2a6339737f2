"""An adapter that reads latents of a dictionary and writes latents of the same dictionary.

At a site with stream x, latents z = encode(x), and decoder directions D without the bias:

    x ← x + (((z · norm(A)) ∘ s) · norm(B)) D

A [n, r] is normalised by column, B [r, n] by row, s [r] carries the size. What the dictionary does
not reconstruct of x stays in the stream untouched. Given z the change is linear, so it can be
written out as pairs (latent read, latent written, weight).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.latent_adapters.sparsity import Choice, Dense, HardConcrete
from lorascope.models.hooks import replace
from lorascope.models.sites import parse_site

# Latent activations held at once: a quarter of a gigabyte in float32.
_HELD = 2**26
# Gates that are left at less than this are shut: rounding, not choice.
_NOTHING = 1e-8


@dataclass(frozen=True)
class Pair:
    """One relation: latent `read` active at strength z adds `weight` · z of latent `written`."""

    read: int
    written: int
    weight: float


class LatentAdapter(nn.Module):
    """The trainable factors over one frozen dictionary.

    Args:
        dictionary: frozen; held by reference, not part of the adapter's state.
        rank: r.
        sparsity: how the factors are kept sparse.
        scale: s at the start.
        generator: draws the factors at the start.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        rank: int,
        sparsity: Choice | None = None,
        *,
        scale: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise InputError(f"a latent adapter of rank {rank}: give a rank of 1 or more")
        self.sparsity = sparsity or Dense()
        # Kept out of parameters, buffers and state: it is frozen and has files of its own.
        self._dictionary = (dictionary.requires_grad_(False),)
        shape = (rank, dictionary.n_latents)
        self.read = nn.Parameter(self._first(shape, generator))
        self.write = nn.Parameter(self._first(shape, generator))
        self.scale = nn.Parameter(torch.full((rank,), float(scale)))
        self.progress = 1.0
        self._noise: torch.Generator | None = None

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary whose latents are read and written."""
        return self._dictionary[0]

    @property
    def rank(self) -> int:
        """r."""
        return len(self.scale)

    def factors(self) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n"]]:
        """norm(A)ᵀ and norm(B) as they are used now."""
        return self._effective(self.read), self._effective(self.write)

    def penalty(self) -> Float[Tensor, ""]:
        """What sparsity adds to the loss."""
        return self.sparsity.penalty(self.read) + self.sparsity.penalty(self.write)

    def settle(self, rate: float) -> None:
        """To be called after every optimiser step, with its learning rate."""
        for factor in (self.read, self.write):
            self.sparsity.settle(factor.data, rate)

    def at(self, progress: float, noise: torch.Generator | None = None) -> None:
        """Say how far training is; `noise` draws gates while it lasts."""
        self.progress, self._noise = progress, noise

    def forward(
        self, x: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        """The stream with what the adapter writes, where `mask` is true (everywhere by default)."""
        read, write = self.factors()
        rows = x.reshape(-1, x.shape[-1])
        # [r, d]: what each rank writes; far smaller than latents of every row.
        written = (self.scale[:, None] * write) @ self.dictionary.directions.to(write)
        step = max(1, _HELD // self.dictionary.n_latents)
        parts = [
            checkpoint(self._read_chunk, part, read, use_reentrant=False)
            for part in rows.split(step)
        ]
        change = (torch.cat(parts) @ written).reshape(x.shape)
        if mask is not None:
            change = change * mask[..., None].to(change)
        return x + change.to(x.dtype)

    @contextmanager
    def attached(
        self, model: nn.Module, site: str, mask: Bool[Tensor, "batch seq"] | None = None
    ) -> Iterator[None]:
        """Within the `with`, the model's stream at `site` goes through the adapter."""
        with replace(model, parse_site(site), lambda stream: self(stream, mask)):
            yield

    @torch.no_grad()
    def support(self) -> tuple[Int[Tensor, " read"], Int[Tensor, " written"]]:
        """Latents that are read, and latents that are written, by any rank."""
        read, write = self.factors()
        return tuple((f.abs() > _NOTHING).any(0).nonzero().squeeze(1) for f in (read, write))  # type: ignore[return-value]

    @torch.no_grad()
    def pairs(self, most: int = 100) -> list[Pair]:
        """The relations of largest |weight|: Σ_r A_ir s_r B_rj."""
        read, write = self.factors()
        inputs, outputs = self.support()
        weights = (read[:, inputs] * self.scale[:, None]).T @ write[:, outputs]
        order = weights.abs().flatten().argsort(descending=True)[:most].tolist()
        columns = len(outputs)
        return [
            Pair(
                int(inputs[place // columns]),
                int(outputs[place % columns]),
                float(weights.flatten()[place]),
            )
            for place in order
        ]

    def _read_chunk(
        self, rows: Float[Tensor, "some d"], read: Float[Tensor, "r n"]
    ) -> Float[Tensor, "some r"]:
        dictionary = self.dictionary
        return dictionary.encode(rows.to(dictionary.directions.dtype)).to(read) @ read.T

    def _effective(self, raw: Tensor) -> Float[Tensor, "r n"]:
        noise = None
        if self.sparsity.samples and self._noise is not None:
            drawn = torch.rand(raw.shape[0], raw.shape[1] // 2, generator=self._noise)
            noise = drawn.clamp(1e-6, 1 - 1e-6).to(raw)
        return self.sparsity.effective(raw, self.progress, noise)

    def _first(self, shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        drawn = torch.randn(shape, generator=generator)
        if isinstance(self.sparsity, HardConcrete):
            return torch.cat([drawn, torch.full(shape, self.sparsity.first_odds())], dim=1)
        return drawn
