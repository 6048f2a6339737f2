"""Gated: which latents are active is decided apart from how strongly (Rajamanoharan et al. 2024a).

    π = g ((x − b_dec) Eᵀ + b_gate)       m = max(0, g (x − b_dec) Eᵀ · exp(r) + b_mag)
    z = [π > 0] · m
    loss = mean over rows of ‖x − x̂‖² + λ‖max(0, π)‖₁ + ‖x − (max(0, π) D + b_dec)‖²

D and b_dec are held fixed in the last term, which is how the gates learn.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.training.architectures.codes import Codes
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.architectures.penalty import PenalisedObjective
from lorascope.training.architectures.settings import Gated


class GatedObjective(PenalisedObjective):
    """Parameters and loss of a gated dictionary; `encoder_bias` is the gates'."""

    def __init__(
        self,
        settings: Gated,
        weight: float,
        start: TrainingStart,
        products: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(settings, weight, start, products)
        self.log_scale = nn.Parameter(torch.zeros_like(self.encoder_bias))
        self.magnitude_bias = nn.Parameter(torch.zeros_like(self.encoder_bias))

    def plain_loss(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
        maps = self.maps()
        read = (x - self.decoder_bias) @ maps.encoder.T
        gate = read + maps.bias
        z = (gate > 0) * torch.relu(read * self.log_scale.exp() + self.magnitude_bias)
        opened = torch.relu(gate)
        error = self.plain_error(x, z)
        by_gates = opened @ maps.directions.detach() + self.decoder_bias.detach() - x
        terms = error.square().sum(1) + self.weight * opened.sum(1) + by_gates.square().sum(1)
        return terms.mean()

    def settle(self, codes: Codes, gain: Float[Tensor, " n"]) -> Codes:
        """Latents with an open gate, by magnitude; codes hold max(0, π)/g."""
        self._gates = codes
        read = codes.values - codes.at_latents(self.encoder_bias)
        scaled = read * codes.at_latents(self.log_scale.exp())
        magnitudes = torch.relu(scaled + codes.at_latents(self.magnitude_bias / gain))
        # Where the gate is shut a dense layout still holds a number.
        return codes.with_values(magnitudes * (codes.values > 0))

    def reconstruction(
        self, codes: Codes, centred: Float[Tensor, "rows d"], gain: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "rows d"], dict[str, Tensor]]:
        gates, decoder = self._gates, codes.typed(self.decoder)
        scale = 2 / len(centred)
        penalty = self.weight / len(centred)
        error = codes.decode(decoder) - centred
        by_gates = gates.decode(decoder) - centred
        stretch = codes.at_latents(self.log_scale.exp())
        # `products` may write over what it returned before: each is used up at once.
        through_a = codes.products(error * scale, decoder) * (codes.values > 0)
        through_gate = codes.products(by_gates * scale, decoder)
        g_gate = (through_gate + codes.at_latents(gain * penalty)) * (gates.values > 0)
        # The gates' reconstruction holds directions fixed, not the gains in its gates.
        g_gain = codes.by_latent(g_gate * gates.values) / gain
        g_bias = codes.by_latent(through_a)
        g_gain -= g_bias * self.magnitude_bias / gain.square()
        read = gates.values - gates.at_latents(self.encoder_bias)
        g_read = through_a * stretch + g_gate
        g_decoder = codes.outer(codes.values, error * scale)
        return error, {
            "decoder": g_decoder.addcmul_(self.decoder, (g_gain / gain)[:, None]),
            "encoder": codes.outer(g_read, centred),
            "encoder_bias": codes.by_latent(g_gate),
            "log_scale": codes.by_latent(through_a * stretch * read),
            "magnitude_bias": g_bias / gain,
            "decoder_bias": error.sum(0) * scale - codes.by_latent(g_read) @ self.encoder,
        }

    def restart(self, latents: Tensor, aims: Tensor, strength: Tensor) -> None:
        super().restart(latents, aims, strength)
        with torch.no_grad():
            self.log_scale[latents] = 0.0
            self.magnitude_bias[latents] = 0.0

    def dictionary(self, scale: float, card: Card) -> GatedDictionary:
        return GatedDictionary(
            **self.folded(scale),
            log_scale=self.log_scale.detach().cpu().clone(),
            magnitude_bias=self.magnitude_bias.detach().cpu() * scale,
            card=card,
        )
