"""ReLU with an L1 penalty, the audit paper's architecture (equation 7).

z = max(0, pre)        loss = mean over rows of ‖x − x̂‖² + λ‖z‖₁
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.training.architectures.codes import Codes
from lorascope.training.architectures.penalty import PenalisedObjective


class ReluObjective(PenalisedObjective):
    """Parameters and loss of a ReLU dictionary."""

    def plain_loss(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
        z = torch.relu(self.plain_pre(x))
        error = self.plain_error(x, z)
        return (error.square().sum(1) + self.weight * z.sum(1)).mean()

    def u_gradient(
        self, codes: Codes, through_a: Tensor, gain: Float[Tensor, " n"], rows: int
    ) -> Tensor:
        # The penalty is λ‖z‖₁ = λ Σ g_j a_j.
        penalty = codes.at_latents(gain * (self.weight / rows))
        return through_a.add_(penalty).mul_(codes.active)

    def gain_gradient(self, codes: Codes, rows: int) -> Float[Tensor, " n"]:
        return codes.by_latent(codes.values) * (self.weight / rows)

    def dictionary(self, scale: float, card: Card) -> ReluDictionary:
        return ReluDictionary(**self.folded(scale), card=card)
