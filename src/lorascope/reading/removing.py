"""Removing parts of an adapter's effect while it writes: latents at a site, modules' updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import Site
from lorascope.models.updates import lora_factors, lora_layers

Kind = Literal["delta", "base"]
# Numbers held at once of an encoded stream, rows × latents.
_HELD = 2**24


@dataclass(frozen=True, eq=False)
class Reads:
    """A dictionary at a site, and what of the adapter's change it reads.

    Attributes:
        of: "delta": latent j writes z_j(h_adapted − h_base) d_j; "base": it writes what changes of
            it, (z_j(h_adapted) − z_j(h_base)) d_j.
    """

    site: Site
    dictionary: Dictionary
    of: Kind

    @torch.no_grad()
    def encode(
        self, adapted: Float[Tensor, "*rows d"], base: Float[Tensor, "*rows d"]
    ) -> Float[Tensor, "*rows n"]:
        """How much of each latent the adapter's change holds; below zero where it fires less."""
        dictionary = self.dictionary
        theirs, ours = (part.to(dictionary.directions) for part in (adapted, base))
        if self.of == "delta":
            return dictionary.encode(delta(theirs, ours))
        return dictionary.encode(theirs) - dictionary.encode(ours)

    @torch.no_grad()
    def written(
        self,
        adapted: Float[Tensor, "rows seq d"],
        base: Float[Tensor, "rows seq d"],
        numbers: Sequence[Sequence[int]],
        kept: Bool[Tensor, "rows seq"],
    ) -> Float[Tensor, "rows seq d"]:
        """What some latents write into each row; the row's own latents are `numbers[row]`.

        Args:
            kept: where it is wanted; 0 elsewhere.
        """
        found = torch.zeros(adapted.shape, device=adapted.device)
        directions = self.dictionary.directions
        most = max(map(len, numbers))
        table = torch.tensor([[*own, *[-1] * (most - len(own))] for own in numbers])
        table = table.to(adapted.device)
        at = kept.to(adapted.device).nonzero()
        for part in at.split(max(1, _HELD // self.dictionary.n_latents)):
            row, place = part.unbind(1)
            z = self.encode(adapted[row, place], base[row, place])
            own = table[row].to(z.device)
            strengths = z.gather(1, own.clamp(min=0)).masked_fill(own < 0, 0.0)
            written = (strengths[..., None] * directions[own.clamp(min=0)]).sum(1)
            found[row, place] = written.to(found)
        return found


@dataclass(frozen=True, eq=False)
class TakenDelta:
    """What of the adapter's delta at a site lies in some directions, or all of it, taken out.

    Attributes:
        directions: of unit length, orthogonal to each other; None for the whole delta.
    """

    site: Site
    directions: Float[Tensor, "k d"] | None = None
    numbers: ClassVar[tuple[int, ...]] = ()

    @property
    def writer(self) -> TakenDelta:
        """What says how much is taken out."""
        return self

    @torch.no_grad()
    def written(
        self,
        adapted: Float[Tensor, "rows seq d"],
        base: Float[Tensor, "rows seq d"],
        numbers: Sequence[Sequence[int]],
        kept: Bool[Tensor, "rows seq"],
    ) -> Float[Tensor, "rows seq d"]:
        """As of `Reads`; there are no latents, and `numbers` holds none."""
        found = delta(adapted.float(), base.float())
        if self.directions is not None:
            there = self.directions.to(found)
            found = found @ there.T @ there
        return found * kept.to(found)[..., None]


@dataclass(frozen=True)
class TakenLatents:
    """Latents of a dictionary, taken out wherever they fire."""

    reads: Reads
    numbers: tuple[int, ...]

    @property
    def site(self) -> Site:
        """Where they are taken out."""
        return self.reads.site

    @property
    def writer(self) -> Reads:
        """What says how much is taken out."""
        return self.reads


# What is taken out of the stream at a site; the base runs along on the same tokens.
Taken = TakenLatents | TakenDelta


@dataclass(frozen=True)
class Modules:
    """Linear maps whose updates are left out, by their paths in the bare model."""

    paths: tuple[str, ...]


@contextmanager
def left_out(model: AdaptedModel, adapter: str, modules: Modules) -> Iterator[None]:
    """Within the `with`, a LoRA adapter adds nothing to these modules.

    Raises:
        InputError: it is no LoRA adapter.
    """
    name = model.peft_name(adapter)
    layers = [layer for path, layer in lora_layers(model) if path in modules.paths]
    kept = [layer.scaling[name] for layer in layers]
    try:
        for layer in layers:
            layer.scaling[name] = 0.0
        yield
    finally:
        for layer, scale in zip(layers, kept, strict=True):
            layer.scaling[name] = scale


def modules_of(model: AdaptedModel, adapter: str) -> list[str]:
    """Paths of the linear maps whose updates can be left out one at a time; none of adapters that
    are no plain LoRA."""
    info = model.info(adapter)
    if info.kind != "LORA" or info.dora:
        return []
    name = model.peft_name(adapter)
    return [path for path, layer in lora_layers(model) if lora_factors(layer, name) is not None]
