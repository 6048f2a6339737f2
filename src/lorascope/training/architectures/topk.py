"""TopK: each row keeps its k largest latents (Gao et al. 2024, section 2.3), dead ones revived.

    z = the k largest of max(0, pre)        loss = mean over rows of ‖x − x̂‖² + α ‖r − r̂‖²

with r = x − x̂ held fixed and r̂ what dead latents alone make of it (`revival`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.training.architectures.codes import DenseCodes, SparseCodes
from lorascope.training.architectures.revival import RevivedObjective
from lorascope.training.architectures.selection import fixed, largest


class TopKObjective(RevivedObjective):
    """Parameters and loss of a TopK dictionary."""

    def activate(self, pre: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        values, columns = torch.relu(pre).topk(self.k, dim=1)
        return torch.zeros_like(pre).scatter(1, columns, values)

    def gather(self, u: Tensor, gain: Tensor) -> SparseCodes:
        values, columns = largest(u, self.k)
        return fixed(values.relu_(), columns, self.n_latents)

    def mask(self, u: Tensor, gain: Tensor) -> DenseCodes:
        values, columns = largest(u, self.k)
        z = self.workspace.room("kept", tuple(u.shape), u, u.dtype)
        return DenseCodes(z.zero_().scatter_(1, columns, values.relu_()), self.workspace)

    def dictionary(self, scale: float, card: Card) -> TopKDictionary:
        return TopKDictionary(**self.folded(scale), k=self.k, card=card)
