"""Which latents have fired lately, counted on the device without a wait."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class FiringWindow:
    """Counts on how many rows each latent was active since the last reset."""

    def __init__(self, n_latents: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(n_latents, device=device)
        self.rows = 0

    def add(self, latents: Float[Tensor, "rows n"]) -> None:
        """Count one batch of latent activations."""
        self.counts += (latents > 0).sum(0)
        self.rows += len(latents)

    @property
    def silent(self) -> Bool[Tensor, " n"]:
        """Latents that did not fire on any row of the window."""
        return self.counts == 0

    def reset(self) -> None:
        """Start a new window."""
        self.counts.zero_()
        self.rows = 0
