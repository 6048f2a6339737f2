"""JumpReLU dictionaries: a latent is silent up to its threshold and passes unchanged above it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary


class JumpReluDictionary(Dictionary):
    """z = pre · [pre > θ], a threshold θ for each latent (Gemma Scope; BatchTopK as saved)."""

    architecture = "jumprelu"
    threshold: Tensor

    def __init__(
        self,
        encoder: Float[Tensor, "d n"],
        encoder_bias: Float[Tensor, " n"],
        directions: Float[Tensor, "n d"],
        decoder_bias: Float[Tensor, " d"],
        threshold: Float[Tensor, " n"],
        *,
        subtract_bias: bool = True,
        card: Card | None = None,
    ) -> None:
        super().__init__(
            encoder, encoder_bias, directions, decoder_bias, subtract_bias=subtract_bias, card=card
        )
        if threshold.shape != encoder_bias.shape:
            raise ValueError(f"threshold has shape {tuple(threshold.shape)}, expected one a latent")
        self.register_buffer("threshold", threshold.detach().float())

    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        # A negative threshold must not let negative pre-activations through.
        return pre * ((pre > self.threshold) & (pre > 0))

    def _of_unit_norm(self, norms: Float[Tensor, " n"]) -> dict[str, Tensor]:
        norms = torch.where(norms > 0, norms, 1.0)
        return {**super()._of_unit_norm(norms), "threshold": self.threshold * norms}
