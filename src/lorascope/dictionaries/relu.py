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
