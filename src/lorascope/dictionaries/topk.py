"""TopK dictionaries: for each row only the k largest positive pre-activations pass."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary


class TopKDictionary(Dictionary):
    """z = the k largest entries of max(0, pre) in each row, zero elsewhere.

    A row has at most k active latents; fewer where fewer pre-activations are positive.

    Args:
        k: most latents active in a row, 1 … n_latents.

    Raises:
        ValueError: shapes that do not belong together, or k out of range.
    """

    architecture = "topk"
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
        if not 1 <= k <= self.n_latents:
            raise ValueError(f"k is {k}, expected 1 to {self.n_latents}, the number of latents")
        self.k = int(k)

    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        positive = torch.relu(pre)
        largest, places = positive.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(positive).scatter(-1, places, largest)

    def _of_unit_norm(self, norms: Float[Tensor, " n"]) -> dict[str, Tensor]:
        # Latents compete by their size: scaled, each by its own factor, others would win.
        return {}
