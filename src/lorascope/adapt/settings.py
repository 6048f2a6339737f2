"""Settings of a fit around dictionaries: what is fitted, and how it learns."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from lorascope.adapt.divergence import Direction
from lorascope.adapt.parts import Affine, Lora, Tuned
from lorascope.config import Products, Settings


class Learning(Settings):
    """How anything is fitted through a spliced model.

    Attributes:
        direction: "spliced_original" fits KL(ŷ, y), ŷ the spliced model's distribution;
            "original_spliced" fits KL(y, ŷ).
        tokens: budget of tokens whose prediction is compared.
        batch: windows in one pass.
        accumulate: passes a step; their gradients add up as if they were one.
        clip: most that the gradient may have as its norm.
        splice_special: splice special tokens too; else they keep their stream and do not count.
        recompute: compute activations again in the backward pass instead of keeping them.
        products: "auto" runs matrix products in bfloat16 where the hardware has it.
        seed: decides the starting weights and the order of the windows.
    """

    direction: Direction = "spliced_original"
    tokens: int = Field(default=15_000_000, gt=0)
    batch: int = Field(default=8, gt=0)
    accumulate: int = Field(default=1, gt=0)
    clip: float = Field(default=1.0, gt=0)
    splice_special: bool = False
    recompute: bool = False
    products: Products = "auto"
    seed: int = 0


class Adapting(Learning):
    """What is fitted around frozen dictionaries, any of three parts, and how.

    Attributes:
        lora: low-rank adapters on the model's linear maps; None for none.
        affine: an affine map after each site.
        dictionary: the dictionaries themselves.
        before_thresholds: let what is fitted act on what a dictionary with thresholds reads.
    """

    lora: Lora | None = Lora()
    affine: Affine | None = None
    dictionary: Tuned | None = None
    before_thresholds: bool = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.lora is None and self.affine is None and self.dictionary is None:
            raise ValueError("nothing is to be fitted: give lora, affine or dictionary")
        return self
