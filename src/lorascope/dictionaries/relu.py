"""ReLU dictionaries: a latent is silent below zero and passes unchanged above it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary


class ReluDictionary(Dictionary):
    """z = max(0, pre)."""

    architecture = "relu"

    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        return torch.relu(pre)

    def _with(self, changed: dict[str, Tensor]) -> ReluDictionary:
        tensors = {**dict(self.named_buffers()), **changed}
        return ReluDictionary(**tensors, subtract_bias=self.subtract_bias, card=self.card)
