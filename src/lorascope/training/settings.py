"""Settings of training; nothing here waits for torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from lorascope.activations.settings import Treatment
from lorascope.config import Products, Settings


class Fitting(Settings):
    """How long and how fast a dictionary is trained.

    Attributes:
        epochs: passes over the rows.
        batch: rows a step; in an audit at most a quarter of the tokens there are to train on.
        rate: Adam's peak learning rate.
        clip: most that gradients over all parameters may have as their norm. Low enough to act on
            nearly every step, it keeps the first steps, with their far larger gradients, from
            setting Adam's scale for all that follow.
        massive: what is done to massive coordinates and directions of the rows
            (`activations.massive`), where there are some: "clip" centres them and scales them down
            to the spread of the widest of the others, "whiten" to the mean spread of the others,
            "keep" leaves them as they are. The dictionary reads and writes the stream itself in
            every case. Directions are looked for in base streams alone.
        products: type of the large matrix products; "auto" takes bfloat16 where the hardware has
            it. Weights and optimiser state are float32 in every case.

    Examples:
        >>> ls.Fitting(epochs=2, batch=256).steps(rows=1000)
        8
    """

    epochs: float = Field(default=8, gt=0)
    batch: int = Field(default=512, gt=0)
    rate: float = Field(default=4e-3, gt=0)
    clip: float = Field(default=0.01, gt=0)
    massive: Treatment = "clip"
    products: Products = "auto"

    def steps(self, rows: int) -> int:
        """Optimiser steps over so many rows."""
        return max(1, math.ceil(self.epochs * rows / self.batch))

    def within(self, rows: int) -> Fitting:
        """The same in batches of a quarter of so many rows, where they are to be larger.

        Examples:
            >>> ls.Fitting().within(rows=900).batch, ls.Fitting().within(rows=4000).batch
            (225, 512)
        """
        return self.model_copy(update={"batch": max(1, min(self.batch, rows // 4))})


class LoraTraining(Settings):
    """How adapters are trained; everything but the rank is shared.

    Attributes:
        ranks: one adapter each.
        alpha_over_rank: α = this times r, so the update's scale α/r is the same at every rank.
        targets: module names, or "all-linear" for every linear map of the blocks.
        steps, batch: optimiser steps, records a step.
        rate: AdamW's peak learning rate.
        dropout: on the adapters' input.
        context: longest record in tokens; longer ones are cut.
        held_out: share of the records, by hash, that is never trained on.
        seed: decides the adapters' starting weights, the split and the order of records.
        rslora: scale the update by α/√r instead of α/r.
        dora: learn the size of each output apart from its direction.
        products: "auto" runs matrix products in bfloat16 where the hardware has it.
    """

    ranks: tuple[int, ...] = Field(default=(4, 8, 16, 32), min_length=1)
    alpha_over_rank: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    steps: int = Field(default=150, gt=0)
    batch: int = Field(default=8, gt=0)
    rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    context: int = Field(default=256, ge=8)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    seed: int = 0
    rslora: bool = False
    dora: bool = False
    products: Products = "auto"

    def each(self, seeds: Sequence[int] = ()) -> dict[str, LoraTraining]:
        """{adapter: its own settings}: r4 for one rank and seed, r4-s1 where there are several."""
        several = seeds or (self.seed,)
        return {
            f"r{rank}-s{seed}" if len(several) > 1 else f"r{rank}": self.model_copy(
                update={"ranks": (rank,), "seed": seed}
            )
            for rank in self.ranks
            for seed in several
        }
