"""Settings of a fit around dictionaries: what is fitted, and how it learns; no torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lorascope.config import Direction, Products, Settings

Blocks = Literal["all", "after", "next"] | tuple[int, ...]
Targets = Literal["all-linear"] | tuple[str, ...]
# From three draws a prediction interval is 2.5 times as wide as from very many, from eight 1.3.
RANDOM_DRAWS = 8


class Lora(Settings):
    """Settings of the low-rank adapters.

    Attributes:
        rank: of the update of each linear map.
        alpha_over_rank: the update's scale.
        blocks: "all", "after" the first site, the "next" one after each site, or their numbers
            from 0.
        targets: names of linear maps in the blocks, or all of them.
        rate: AdamW's peak learning rate.
    """

    rank: int = Field(default=64, gt=0)
    alpha_over_rank: float = Field(default=1.0, gt=0)
    blocks: Blocks = "after"
    targets: Targets = "all-linear"
    rate: float = Field(default=1e-3, gt=0)


class Affine(Settings):
    """Settings of the affine maps.

    Attributes:
        rate: AdamW's peak learning rate.
    """

    rate: float = Field(default=1e-3, gt=0)


class Tuned(Settings):
    """Settings of the dictionaries' own fine-tune.

    Attributes:
        rate: AdamW's peak learning rate.
        encoder: fit the encoder too. By default only where L0 is fixed (TopK): with thresholds a
            moving encoder would let more latents fire.
    """

    rate: float = Field(default=1e-3, gt=0)
    encoder: bool | None = None


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
