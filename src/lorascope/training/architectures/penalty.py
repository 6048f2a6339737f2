"""A sparsity penalty with a weight λ that can be steered towards a target L0."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.training.architectures.codes import Codes, DenseCodes, SparseCodes
from lorascope.training.architectures.objective import Objective, TrainingStart
from lorascope.training.architectures.selection import positive
from lorascope.training.architectures.settings import PenalisedSettings

# log λ moves each step by this share of log(L0 / target), or so many times that over a whole run.
_RATE, _TIMES = 0.02, 40.0
# What of a change in log(L0 / target) log λ follows at once, while it is within `_NEAR` of 0.
_PROPORTIONAL, _NEAR = 1.0, 0.7
# The most that log λ moves in a step.
_MOST = 0.05


class PenalisedObjective(Objective):
    """An objective with a penalty weight λ, a buffer that moves while a target L0 is sought."""

    weight: Tensor
    off: Tensor

    def __init__(
        self,
        settings: PenalisedSettings,
        weight: float,
        start: TrainingStart,
        products: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(start, products)
        self.target_l0 = settings.target_l0
        device = start.bias.device
        self.register_buffer("weight", torch.tensor(weight, device=device))
        self.register_buffer("off", torch.full((), _NEAR, device=device))

    def gather(self, u: Float[Tensor, "some n"], gain: Float[Tensor, " n"]) -> SparseCodes:
        """Latents above zero."""
        return positive(u)

    def mask(self, u: Float[Tensor, "rows n"], gain: Float[Tensor, " n"]) -> DenseCodes:
        """Latents above zero."""
        return DenseCodes(u.relu_(), self.workspace)

    def scalars(self) -> dict[str, Tensor]:
        return {"l1": self.weight.clone()}

    def count(self, codes: Codes, rows: int) -> None:
        """As every architecture, then move λ towards the target L0.

        With e = log(L0 / target): log λ grows by r·e + p·Δe, an integral and a proportional term.
        r is at least `_RATE` and larger in short runs, which have fewer steps to get there in.
        """
        super().count(codes, rows)
        if self.target_l0 is None:
            return
        off = (self.l0.clamp(min=0.1) / self.target_l0).log()
        near = off.clamp(-_NEAR, _NEAR)
        rate = max(_RATE, _TIMES / self.horizon) if self.horizon else _RATE
        change = off * rate + (near - self.off) * _PROPORTIONAL
        self.weight *= change.clamp(-_MOST, _MOST).exp()
        self.off.copy_(near)
