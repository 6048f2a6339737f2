"""What is captured from one batch of tokens; the delta is defined here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


def delta(adapted: Float[Tensor, "*rows d"], base: Float[Tensor, "*rows d"]) -> Tensor:
    """h_Δ = adapted − base, in float32: one sign, subtracted before any down-cast.

    At a residual-stream site this accumulates through all adapted maps of all earlier blocks; it
    is not B·A·x of one map and is generally of full rank.
    """
    return adapted.float() - base.float()


@dataclass(frozen=True)
class TokenRows:
    """Where each captured row comes from: one entry a kept token."""

    document: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]
    token: Int[Tensor, " rows"]
    response: Bool[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.document)
