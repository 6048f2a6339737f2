"""JumpReLU with an L0 penalty and trained thresholds (Rajamanoharan et al. 2024b, section 3).

    z = pre · H(pre − θ)        loss = mean over rows of ‖x − x̂‖² + λ‖z‖₀

The step H has no slope; a threshold's gradient comes from the latents within half a bandwidth ε of
it (equations 11 and 12, rectangle kernel):

    ∂z/∂θ ≈ −(θ/ε) [|pre − θ| < ε/2]        ∂‖z‖₀/∂θ ≈ −(1/ε) [|pre − θ| < ε/2]

θ = exp(log θ) is what is trained.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.training.architectures.codes import Codes, DenseCodes, SparseCodes
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.architectures.penalty import PenalisedObjective
from lorascope.training.architectures.selection import above
from lorascope.training.architectures.settings import JumpReLU

# Thresholds start where this many times the target are active: they rise more readily than fall.
_FIRST_L0 = 1.0


class JumpReluObjective(PenalisedObjective):
    """Parameters and loss of a JumpReLU dictionary."""

    def __init__(
        self, settings: JumpReLU, start: TrainingStart, products: torch.dtype = torch.float32
    ) -> None:
        super().__init__(settings, settings.penalty, start, products)
        self.bandwidth = settings.bandwidth
        self.first_log_threshold = math.log(settings.threshold)
        self.log_threshold = nn.Parameter(
            torch.full_like(self.encoder_bias, self.first_log_threshold)
        )

    def plain_loss(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
        pre = self.plain_pre(x)
        threshold = self.log_threshold.exp()
        z = _Jump.apply(pre, threshold, self.bandwidth)
        error = self.plain_error(x, z)
        l0 = _Step.apply(pre, threshold, self.bandwidth).sum(1)
        return (error.square().sum(1) + self.weight * l0).mean()

    def _lowest(self, gain: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The u from which on a latent is active or near enough to move its threshold."""
        return (self.log_threshold.exp() - self.bandwidth / 2).clamp(min=0) / gain

    def gather(self, u: Tensor, gain: Tensor) -> SparseCodes:
        return above(u, self._lowest(gain).to(u.dtype))

    def mask(self, u: Tensor, gain: Tensor) -> DenseCodes:
        room = self.workspace.room("above", tuple(u.shape), u, torch.bool)
        wanted = torch.gt(u, self._lowest(gain).to(u.dtype), out=room)
        return DenseCodes(u.mul_(wanted), self.workspace)

    def settle(self, codes: Codes, gain: Float[Tensor, " n"]) -> Codes:
        """Active latents, and with zeros those just below their threshold, which move it."""
        distance = codes.values * codes.at_latents(gain)
        distance -= codes.at_latents(self.log_threshold.exp())
        self._near = (distance.abs() < self.bandwidth / 2) & (codes.values > 0)
        return codes.with_values(codes.values * ((distance > 0) & (codes.values > 0)))

    def reconstruction(
        self, codes: Codes, centred: Float[Tensor, "rows d"], gain: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "rows d"], dict[str, Tensor]]:
        """As for every architecture, with the thresholds' gradients."""
        error, gradients = super().reconstruction(codes, centred, gain)
        gradients["log_threshold"] = self._threshold_gradient
        return error, gradients

    def u_gradient(
        self, codes: Codes, through_a: Tensor, gain: Float[Tensor, " n"], rows: int
    ) -> Tensor:
        threshold = self.log_threshold.exp()
        near = self._near.to(through_a.dtype) / self.bandwidth
        through_step = codes.by_latent(near) * (self.weight / rows)
        through_jump = codes.by_latent(near.mul_(through_a)) * threshold / gain
        # d/d log θ = θ d/dθ
        self._threshold_gradient = -threshold * (through_jump + through_step)
        return through_a.mul_(codes.active)

    def restart(self, latents: Tensor, aims: Tensor, strength: Tensor) -> None:
        super().restart(latents, aims, strength)
        with torch.no_grad():
            self.log_threshold[latents] = self.first_log_threshold

    def calibrate(self, x: Float[Tensor, "rows d"]) -> None:
        """As for every architecture; with a target L0 the thresholds start in its reach."""
        super().calibrate(x)
        if self.target_l0 is not None:
            self._shift(x, min(_FIRST_L0 * self.target_l0, self.n_latents / 4))

    def finish(self, x: Float[Tensor, "rows d"]) -> None:
        """Move all thresholds by the one factor at which rows like these meet the target L0."""
        if self.target_l0 is not None:
            self._shift(x, self.target_l0)

    @torch.no_grad()
    def _shift(self, x: Float[Tensor, "rows d"], l0: float) -> None:
        ratios = torch.relu(self.plain_pre(x)) / self.log_threshold.exp()
        kept = min(round(l0 * len(x)), ratios.numel())
        factor = ratios.flatten().topk(kept).values[-1]
        if factor > 0:
            self.log_threshold.add_(factor.log())

    def dictionary(self, scale: float, card: Card) -> JumpReluDictionary:
        threshold = self.log_threshold.detach().exp().cpu() * scale
        return JumpReluDictionary(**self.folded(scale), threshold=threshold, card=card)


class _Jump(torch.autograd.Function):
    """pre · H(pre − θ) for positive pre, with the threshold's kernel estimate."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * ((pre > threshold) & (pre > 0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        active = (pre > threshold) & (pre > 0)
        slope = -threshold / ctx.bandwidth * _near(pre, threshold, ctx.bandwidth)
        return grads[0] * active, (grads[0] * slope).sum(0), None


class _Step(torch.autograd.Function):
    """H(pre − θ) for positive pre, with the threshold's kernel estimate."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return ((pre > threshold) & (pre > 0)).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        slope = -_near(pre, threshold, ctx.bandwidth) / ctx.bandwidth
        return None, (grads[0] * slope).sum(0), None


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    near = ((pre - threshold).abs() < bandwidth / 2) & (pre > 0)
    return near.to(pre.dtype)
