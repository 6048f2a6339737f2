"""A sparsity penalty with a weight λ that can be steered towards a target L0."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lorascope.training.architectures.codes import Codes, DenseCodes, SparseCodes
from lorascope.training.architectures.objective import ArchitectureSettings, Objective, Start
from lorascope.training.architectures.selection import above


class PenalisedSettings(ArchitectureSettings):
    """Settings of an architecture whose sparsity comes from a penalty.

    Attributes:
        target_l0: mean active latents per row to steer λ towards; λ then only starts at the
            value given for it.
        resample: give latents that have stopped firing a new start, aimed at badly reconstructed
            rows.
    """

    target_l0: float | None = Field(default=None, gt=0)
    resample: bool = True

    @model_validator(mode="after")
    def _target_within_reach(self) -> Self:
        if self.target_l0 is not None and self.target_l0 >= self.n_latents:
            raise ValueError(f"target_l0 {self.target_l0} must be below n_latents {self.n_latents}")
        return self


class PenalisedObjective(Objective):
    """An objective with a penalty weight λ, a buffer that moves while a target L0 is sought."""

    weight: Tensor

    def __init__(
        self,
        settings: PenalisedSettings,
        weight: float,
        start: Start,
        products: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(start, products)
        self.target_l0 = settings.target_l0
        self.register_buffer("weight", torch.tensor(weight, device=start.bias.device))

    def gather(
        self, u: Float[Tensor, "some n"], bias: Float[Tensor, " n"], gain: Float[Tensor, " n"]
    ) -> SparseCodes:
        """Latents above zero."""
        return above(u, -bias, bias, self.workspace)

    def mask(
        self, u: Float[Tensor, "rows n"], bias: Float[Tensor, " n"], gain: Float[Tensor, " n"]
    ) -> DenseCodes:
        """Latents above zero."""
        return DenseCodes(u.add_(bias).relu_(), self.workspace)

    def scalars(self) -> dict[str, Tensor]:
        return {"l1": self.weight.clone()}

    def count(self, codes: Codes, rows: int) -> None:
        """As every architecture, then move λ by the ratio of L0 to its target."""
        super().count(codes, rows)
        if self.target_l0 is not None:
            ratio = self.l0.clamp(min=0.1) / self.target_l0
            self.weight *= ratio.pow(0.02).clamp(0.97, 1.03)
