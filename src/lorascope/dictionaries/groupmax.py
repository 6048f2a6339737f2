"""GroupMax dictionaries (sparsify): of each group of latents only the largest passes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary


class GroupMaxDictionary(Dictionary):
    """z = max(0, pre) where pre is the largest of its group in the row, zero elsewhere.

    The groups are k runs of n_latents / k neighbouring latents. A row has at most k active
    latents; fewer where all of a group are negative. Of equal ones the first passes.

    Args:
        k: number of groups; divides n_latents.

    Raises:
        ValueError: shapes that do not belong together, or groups of unequal size.
    """

    architecture = "groupmax"
    numbers = ("k",)

    def __init__(
        self,
        encoder: Float[Tensor, "d n"],
        encoder_bias: Float[Tensor, " n"],
        directions: Float[Tensor, "n d"],
        decoder_bias: Float[Tensor, " d"],
        k: int,
        *,
        subtract_bias: bool = True,
        card: Card | None = None,
    ) -> None:
        super().__init__(
            encoder, encoder_bias, directions, decoder_bias, subtract_bias=subtract_bias, card=card
        )
        if not 1 <= k <= self.n_latents or self.n_latents % k:
            raise ValueError(f"k is {k}, expected a divisor of {self.n_latents} latents")
        self.k = int(k)

    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        groups = torch.relu(pre).unflatten(-1, (self.k, -1))
        largest, places = groups.max(dim=-1, keepdim=True)
        return torch.zeros_like(groups).scatter(-1, places, largest).flatten(-2)
