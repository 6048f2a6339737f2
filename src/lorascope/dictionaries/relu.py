"""ReLU dictionaries trained with an L1 penalty: the audit paper's architecture."""

from __future__ import annotations

from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lorascope.config import Settings
from lorascope.dictionaries.dictionary import Dictionary


class ReLU(Settings):
    """Settings of a ReLU dictionary.

    Attributes:
        n_latents: how many latents.
        l1: λ in ‖x − x̂‖² + λ‖z‖₁ (equation 7), inputs scaled to mean norm 1.
        target_l0: mean active latents per row to steer λ towards; `l1` is then where λ starts.
        resample: give latents that have stopped firing a new start, aimed at badly reconstructed
            rows.
    """

    architecture: Literal["relu"] = "relu"
    n_latents: int = Field(gt=0)
    l1: float = Field(default=0.15, gt=0)
    target_l0: float | None = Field(default=None, gt=0)
    resample: bool = True

    @model_validator(mode="after")
    def _target_within_reach(self) -> Self:
        if self.target_l0 is not None and self.target_l0 >= self.n_latents:
            raise ValueError(f"target_l0 {self.target_l0} must be below n_latents {self.n_latents}")
        return self


class ReluDictionary(Dictionary):
    """z = max(0, pre)."""

    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        return torch.relu(pre)

    def _with(self, changed: dict[str, Tensor]) -> ReluDictionary:
        tensors = {**dict(self.named_buffers()), **changed}
        return ReluDictionary(**tensors, subtract_bias=self.subtract_bias, card=self.card)
