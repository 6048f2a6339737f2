"""Settings of a latent adapter's training; nothing here waits for torch."""

from __future__ import annotations

from pydantic import Field

from lorascope.config import Products, Settings
from lorascope.latent_adapters.sparsity import Dense, Sparsity

# Alternatives of each latent that is removed, where the dictionary has as many.
ALTERNATIVES = 40


class LatentTraining(Settings):
    """How a latent adapter is trained.

    Attributes:
        rank: r.
        sparsity: how the factors are kept sparse.
        steps: optimiser steps.
        batch: examples a step, half of them changed.
        rate: AdamW's peak learning rate; entries of the factors start at a size of about 1.
        scale: s at the start, as the norm of what it makes the fresh factors write over the
            stream's norm (root mean squares over the examples). The unit of s is taken from
            the same: where s = 1 the fresh factors write as much as the stream holds.
        scale_rate: learning rate of s in that unit, over `rate`.
        clip: most that the gradient may have as its norm.
        products: "auto" runs the model's matrix products in bfloat16 where the hardware has it.
        seed: decides the factors at the start, the order of the examples and what gates draw.
    """

    rank: int = Field(default=1, gt=0)
    sparsity: Sparsity = Dense()
    steps: int = Field(default=300, gt=0)
    batch: int = Field(default=16, ge=2, multiple_of=2)
    rate: float = Field(default=1e-2, gt=0)
    scale: float = Field(default=0.02, gt=0)
    scale_rate: float = Field(default=0.3, gt=0)
    clip: float = Field(default=1.0, gt=0)
    products: Products = "auto"
    seed: int = 0
