"""Dictionary losses with their gradients written out: no autograd graph over [batch, n] tensors.

ReLU with an L1 penalty, on inputs scaled to mean norm 1 (equation 7 of the audit paper):

    pre = (x − b_dec) W_enc + b_enc        z = max(0, pre)        x̂ = z D + b_dec
    loss = mean over rows of ‖x − x̂‖² + λ‖z‖₁

D holds unit rows by construction: D = V/‖V‖ with V the parameter, so gradients pass through the
normalisation and no step can leave the unit sphere.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from lorascope.config import Settings
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.training.firing import FiringWindow


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


class ReluObjective(nn.Module):
    """Parameters and loss of a ReLU dictionary in training.

    Args:
        settings: latents, λ, target L0.
        mean: mean of the scaled rows; where b_dec starts.
        product_dtype: type of the large matrix products (bfloat16 where the hardware has it).
        generator: draws the starting directions.
    """

    l1: Tensor

    def __init__(
        self,
        settings: ReLU,
        mean: Float[Tensor, " d"],
        generator: torch.Generator,
        product_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        d = len(mean)
        start = torch.randn(settings.n_latents, d, generator=generator)
        start = (start / start.norm(dim=1, keepdim=True)).to(mean.device)
        self.settings = settings
        self.decoder = nn.Parameter(start.clone())
        self.encoder = nn.Parameter(start.T.clone().contiguous())
        self.encoder_bias = nn.Parameter(torch.zeros(settings.n_latents, device=mean.device))
        self.decoder_bias = nn.Parameter(mean.clone())
        self.register_buffer("l1", torch.tensor(settings.l1, device=mean.device))
        self.product_dtype = product_dtype
        self.firing = FiringWindow(settings.n_latents, mean.device)

    def plain_loss(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
        """The loss as autograd sees it: the definition the explicit gradients are tested on."""
        directions = self.decoder / self.decoder.norm(dim=1, keepdim=True)
        z = torch.relu((x - self.decoder_bias) @ self.encoder + self.encoder_bias)
        error = z @ directions + self.decoder_bias - x
        return (error.square().sum(1) + self.l1 * z.sum(1)).mean()

    @torch.no_grad()
    def step(self, x: Float[Tensor, "rows d"]) -> dict[str, Tensor]:
        """Leave the loss's gradients on the parameters; returns error, L0 and λ of the batch."""
        low = self.product_dtype
        norms = self.decoder.norm(dim=1, keepdim=True)
        directions = self.decoder / norms
        low_directions = directions.to(low)
        centred = x - self.decoder_bias
        low_centred = centred.to(low)
        pre = low_centred @ self.encoder.to(low)
        pre += self.encoder_bias.to(low)
        z = torch.relu_(pre)
        error = (z @ low_directions).float() - centred

        scale = 1.0 / len(x)
        g_reconstruction = (error * (2 * scale)).to(low)
        active = z > 0
        g_pre = g_reconstruction @ low_directions.T
        g_pre += self.l1 * scale
        g_pre *= active
        g_directions = (z.T @ g_reconstruction).float()
        along = (g_directions * directions).sum(1, keepdim=True)
        self.decoder.grad = (g_directions - along * directions) / norms
        self.encoder.grad = (low_centred.T @ g_pre).float()
        bias_grad = g_pre.sum(0, dtype=torch.float32)
        self.encoder_bias.grad = bias_grad
        self.decoder_bias.grad = g_reconstruction.sum(0, dtype=torch.float32) - (
            self.encoder @ bias_grad
        )

        counts = active.sum(0)
        self.firing.counts += counts
        self.firing.rows += len(x)
        l0 = counts.sum() / len(x)
        self._steer(l0)
        return {"error": error.square().sum(1).mean(), "l0": l0, "l1": self.l1.clone()}

    def _steer(self, l0: Tensor) -> None:
        """Move λ towards the target L0 by the ratio of the two; nothing waits on the device."""
        target = self.settings.target_l0
        if target is not None:
            self.l1 *= (l0.clamp(min=0.1) / target).pow(0.02).clamp(0.97, 1.03)

    @torch.no_grad()
    def resample(
        self,
        x: Float[Tensor, "rows d"],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> int:
        """Aim silent latents at badly reconstructed rows and forget their optimiser state.

        New directions are the residuals of rows drawn in proportion to their squared error; the
        encoder reads the same direction at a fifth of the living latents' mean strength.
        Returns how many latents started anew.
        """
        silent = self.firing.silent.nonzero().squeeze(1)
        self.firing.reset()
        if not len(silent) or len(silent) == self.settings.n_latents:
            return 0
        directions = self.decoder / self.decoder.norm(dim=1, keepdim=True)
        z = torch.relu((x - self.decoder_bias) @ self.encoder + self.encoder_bias)
        residual = x - z @ directions - self.decoder_bias
        weights = residual.square().sum(1).cpu()
        chosen = torch.multinomial(weights, len(silent), replacement=True, generator=generator)
        aims = residual[chosen.to(x.device)]
        aims = aims / aims.norm(dim=1, keepdim=True).clamp(min=1e-12)
        living = torch.ones(self.settings.n_latents, dtype=torch.bool, device=x.device)
        living[silent] = False
        strength = 0.2 * self.encoder[:, living].norm(dim=0).mean()
        self.decoder[silent] = aims
        self.encoder[:, silent] = strength * aims.T
        self.encoder_bias[silent] = 0.0
        for parameter, index in (
            (self.decoder, (silent,)),
            (self.encoder, (slice(None), silent)),
            (self.encoder_bias, (silent,)),
        ):
            for name in ("exp_avg", "exp_avg_sq"):
                if name in optimizer.state[parameter]:
                    optimizer.state[parameter][name][index] = 0.0
        return len(silent)

    @torch.no_grad()
    def dictionary(self, scale: float, card: Card) -> ReluDictionary:
        """The trained dictionary on raw activations: the scale folded into the biases.

        With x = s·x̃ and z = s·z̃ the maps keep their weights and the biases grow by s, so directions
        stay of unit norm and latents are in the stream's units.
        """
        norms = self.decoder.norm(dim=1, keepdim=True)
        return ReluDictionary(
            encoder=self.encoder.cpu().clone(),
            encoder_bias=self.encoder_bias.cpu() * scale,
            directions=(self.decoder / norms).cpu(),
            decoder_bias=self.decoder_bias.cpu() * scale,
            card=card,
        )
