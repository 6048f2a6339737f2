"""Gated dictionaries: one set of encoder directions decides whether a latent fires and how much."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary


class GatedDictionary(Dictionary):
    """z = [pre > 0] · max(0, (pre − b_gate) · exp(r_mag) + b_mag), pre = x W_enc + b_gate.

    Args:
        encoder_bias: b_gate.
        log_scale: r_mag, log of the magnitude's scale against the gate's, for each latent.
        magnitude_bias: b_mag.

    Raises:
        ValueError: shapes that do not belong together.
    """

    architecture = "gated"
    log_scale: Tensor
    magnitude_bias: Tensor

    def __init__(
        self,
        encoder: Float[Tensor, "d n"],
        encoder_bias: Float[Tensor, " n"],
        directions: Float[Tensor, "n d"],
        decoder_bias: Float[Tensor, " d"],
        log_scale: Float[Tensor, " n"],
        magnitude_bias: Float[Tensor, " n"],
        *,
        subtract_bias: bool = True,
        card: Card | None = None,
    ) -> None:
        super().__init__(
            encoder, encoder_bias, directions, decoder_bias, subtract_bias=subtract_bias, card=card
        )
        for name, given in (("log_scale", log_scale), ("magnitude_bias", magnitude_bias)):
            if given.shape != encoder_bias.shape:
                raise ValueError(f"{name} has shape {tuple(given.shape)}, expected one a latent")
            self.register_buffer(name, given.detach().float())

    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        magnitude = (pre - self.encoder_bias) * self.log_scale.exp() + self.magnitude_bias
        return torch.relu(magnitude) * (pre > 0)

    def _moved_back(self, moved: Float[Tensor, " n"]) -> dict[str, Tensor]:
        magnitude = self.magnitude_bias + moved * self.log_scale.exp()
        return {**super()._moved_back(moved), "magnitude_bias": magnitude}

    def _of_unit_norm(self, norms: Float[Tensor, " n"]) -> dict[str, Tensor]:
        norms = torch.where(norms > 0, norms, 1.0)
        return {**super()._of_unit_norm(norms), "magnitude_bias": self.magnitude_bias * norms}
