"""Matryoshka BatchTopK: every prefix of the dictionary reconstructs too (Bussmann et al. 2025).

    loss = mean over prefixes m of ‖x − (Σ_{j<m} z_j D_j + b_dec)‖², z as in BatchTopK

so that early latents hold what is general and later ones what is particular.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.training.architectures.batch_topk import BatchTopKObjective
from lorascope.training.architectures.codes import Codes
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.architectures.settings import Matryoshka


class MatryoshkaObjective(BatchTopKObjective):
    """Parameters and loss of a Matryoshka BatchTopK dictionary."""

    def __init__(
        self, settings: Matryoshka, start: TrainingStart, products: torch.dtype = torch.float32
    ) -> None:
        super().__init__(settings, start, products)
        self.ends = settings.ends

    def reconstruction_loss(
        self, x: Float[Tensor, "rows d"], z: Float[Tensor, "rows n"]
    ) -> Float[Tensor, ""]:
        directions = self.maps().directions
        losses = [
            (z[:, :end] @ directions[:end] + self.decoder_bias - x).square().sum(1).mean()
            for end in self.ends
        ]
        return torch.stack(losses).mean()

    def reconstruction(
        self, codes: Codes, centred: Float[Tensor, "rows d"], gain: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "rows d"], dict[str, Tensor]]:
        """As for one dictionary; a latent's gradients come from every prefix that holds it."""
        bounds = list(zip((0, *self.ends[:-1]), self.ends, strict=True))
        blocks = [codes.block(*bound) for bound in bounds]
        weights = codes.typed(self.decoder)
        error = -centred
        errors = []
        for (block, _), (first, end) in zip(blocks, bounds, strict=True):
            error = error + block.decode(weights[first:end])
            errors.append(error)
        g = torch.zeros_like(centred)
        decoder = torch.empty_like(self.decoder)
        through_a = torch.empty_like(codes.values)
        for i in reversed(range(len(blocks))):
            (block, where), (first, end) = blocks[i], bounds[i]
            g += errors[i] * (2 / (len(centred) * len(errors)))
            decoder[first:end] = block.outer(block.values, g)
            through_a[where] = block.products(g, weights[first:end])
        g_u = self.u_gradient(codes, through_a, gain, len(centred))
        g_bias = codes.by_latent(g_u)
        return errors[-1], {
            "decoder": decoder,
            "encoder": codes.outer(g_u, centred),
            "encoder_bias": g_bias,
            "decoder_bias": g.sum(0) - g_bias @ self.encoder,
        }
