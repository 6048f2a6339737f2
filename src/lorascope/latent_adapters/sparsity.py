"""How the factors of a latent adapter are made sparse: interchangeable choices, one class each.

Every choice says what a raw factor becomes before it is used (`effective`), what it adds to the
loss (`penalty`), and what it does to the raw factor after an optimiser step (`settle`). Factors
stand as [r, n]: a row for each rank, an entry for each latent. Rows are used at unit norm, whatever
the choice, so that only the scale s carries size.

`RawL1` is the source's own choice, kept as the baseline: where rows are normalised after the
penalty, it can be lowered without limit by shrinking a whole row, which changes nothing in use.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lorascope.config import Settings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    Factor = Float[Tensor, "r n"]

# Hard concrete gates (Louizos et al. 2018): stretched to (−0.1, 1.1), temperature 2/3.
_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3


def unit(factor: Factor) -> Factor:
    """Rows at unit norm; a row of zeros stays one."""
    return factor / factor.norm(dim=1, keepdim=True).clamp(min=1e-12)


class Choice(Settings, ABC):
    """What every choice of sparsity offers.

    Attributes:
        preselect: before training, keep this many latents to read and as many to write, chosen by
            attribution (`attribution.candidates`), and train on these alone; all by default.
    """

    preselect: int | None = Field(default=None, gt=0)

    @abstractmethod
    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        """The factor as it is used; gradients go back to `raw`.

        Args:
            progress: share of training that is done; 1 when it is over.
            noise: uniform draws for choices that sample while training; None uses none.
        """

    def penalty(self, raw: Factor) -> Float[Tensor, ""]:
        """What is added to the loss for one factor."""
        return raw.new_zeros(())

    def settle(self, raw: Factor, rate: float) -> None:
        """Act on the raw factor after an optimiser step at learning rate `rate`."""

    @property
    def samples(self) -> bool:
        """Whether training draws noise."""
        return False


class Dense(Choice):
    """No sparsity at all: what the others are held against."""

    kind: Literal["dense"] = "dense"

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        return unit(raw)


class Fixed(Choice):
    """Entries as they stand: what a trained adapter is saved, opened and cut down as.

    Rows keep the norm they have, so that a row cut down to its largest entries does what these
    entries did in the whole.
    """

    kind: Literal["fixed"] = "fixed"

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        return raw


class RawL1(Choice):
    """L1 on the raw weights, rows normalised afterwards: the source's own.

    Attributes:
        weight: of the |entries| in the loss.
        reduction: whether their mean or their sum is penalised; the source does not say.
    """

    kind: Literal["raw_l1"] = "raw_l1"
    weight: float = Field(default=0.05, ge=0)
    reduction: Literal["mean", "sum"] = "mean"

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        return unit(raw)

    def penalty(self, raw: Factor) -> Float[Tensor, ""]:
        sizes = raw.abs()
        return self.weight * (sizes.mean() if self.reduction == "mean" else sizes.sum())


class RatioL1(Choice):
    """‖a‖₁ / (√n ‖a‖₂) of each row: 1 where all entries are alike, 1/√n where one is left.

    The normalisation stands inside the penalty, so that no scaling of a row lowers it.

    Attributes:
        weight: of the mean ratio in the loss.
    """

    kind: Literal["ratio_l1"] = "ratio_l1"
    weight: float = Field(default=1.0, ge=0)

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        return unit(raw)

    def penalty(self, raw: Factor) -> Float[Tensor, ""]:
        return self.weight * (unit(raw).abs().sum(1) / math.sqrt(raw.shape[1])).mean()


class Proximal(Choice):
    """Soft thresholding of the unit-norm rows after every step; zeros are exact.

    Attributes:
        threshold: taken off every |entry| at a learning rate of 1, in units of 1/√n.
    """

    kind: Literal["proximal"] = "proximal"
    threshold: float = Field(default=1.0, ge=0)

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        return unit(raw)

    def settle(self, raw: Factor, rate: float) -> None:
        import torch

        with torch.no_grad():
            rows = unit(raw)
            # A row is never emptied: its largest entry stays.
            cut = torch.minimum(
                rows.new_full((len(rows), 1), self.threshold * rate / math.sqrt(raw.shape[1])),
                0.99 * rows.abs().amax(1, keepdim=True),
            )
            raw.copy_(unit(rows.sign() * (rows.abs() - cut).clamp(min=0)))


class TopM(Choice):
    """The m largest entries of each row; how many is lowered as training goes on.

    Gradients reach all entries as if none were cut (straight through), so that an entry can come
    back.

    Attributes:
        m: entries left in the end.
        annealed: share of training over which m falls, geometrically, from all entries.
    """

    kind: Literal["top_m"] = "top_m"
    m: int = Field(default=16, gt=0)
    annealed: float = Field(default=0.5, ge=0, le=1)

    def left(self, n: int, progress: float) -> int:
        """How many entries of n are left at this point of training."""
        if self.annealed == 0 or progress >= self.annealed:
            return min(self.m, n)
        share = progress / self.annealed
        return max(min(self.m, n), round(n ** (1 - share) * min(self.m, n) ** share))

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        kept = self.left(raw.shape[1], progress)
        places = raw.detach().abs().topk(kept, dim=1).indices
        mask = raw.new_zeros(raw.shape).scatter(1, places, 1.0)
        cut = unit(raw * mask)
        whole = unit(raw)
        return whole + (cut - whole).detach()


class HardConcrete(Choice):
    """A gate for each latent, open or shut with a learned probability (Louizos et al. 2018).

    The raw factor's second half holds the gates' log-odds. The expected number of open gates is
    penalised, their values are sampled while training, and in the end each takes its mean value,
    which is exactly 0 for most.

    Attributes:
        weight: of the expected share of open gates in the loss.
        open_at_first: probability that a gate is open at the start.
    """

    kind: Literal["hard_concrete"] = "hard_concrete"
    weight: float = Field(default=1.0, ge=0)
    open_at_first: float = Field(default=0.9, gt=0, lt=1)

    @property
    def samples(self) -> bool:
        return True

    def effective(self, raw: Factor, progress: float, noise: Tensor | None = None) -> Factor:
        values, odds = raw.chunk(2, dim=1)
        if noise is not None:
            odds = (noise.log() - (1 - noise).log() + odds) / _TEMPERATURE
        gates = (odds.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0, 1)
        return unit(values * gates)

    def penalty(self, raw: Factor) -> Float[Tensor, ""]:
        odds = raw.chunk(2, dim=1)[1]
        return self.weight * (odds - _TEMPERATURE * math.log(-_LOW / _HIGH)).sigmoid().mean()

    def first_odds(self) -> float:
        """Log-odds at which a gate is open with the probability asked for."""
        wanted = math.log(self.open_at_first / (1 - self.open_at_first))
        return wanted + _TEMPERATURE * math.log(-_LOW / _HIGH)


Sparsity = Annotated[
    Dense | RawL1 | RatioL1 | Proximal | TopM | HardConcrete, Field(discriminator="kind")
]
