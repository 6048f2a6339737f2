"""Base and delta rows made from known features: how many of the delta's are the base's is planted.

A feature is a unit direction that is on in some rows, with a strength between 1 and 2 there; a row
is the sum of what is on in it, and noise. Of the delta's features, the first are features of the
base and the others new directions. A shared feature is on in the delta, of the rows in which it is
on there, in a planted share together with the base's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.measures.rows import HeldOut
from lorascope.randomness import generator

# Moments of a strength, uniform between 1 and 2.
_MEAN, _SQUARE = 1.5, 7 / 3


@dataclass(frozen=True)
class PlantedRecipe:
    """What is planted.

    Attributes:
        share: of the delta's features, how many are features of the base.
        together: of the firings of a shared feature in the delta, how many fall on rows in which
            the base has it on too. `rate` stands for no relation.
        features: of the base, and as many of the delta.
        rate: share of rows in which a feature is on.
        noise: standard deviation of each entry of the noise.
        seed: decides directions and rows.
    """

    share: float
    together: float = 0.5
    d_model: int = 192
    features: int = 32
    rate: float = 0.0625
    noise: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 <= self.together <= 1 and 0 < self.rate <= 0.5):
            raise InputError(
                f"share {self.share}, together {self.together}, rate {self.rate}: "
                "give shares between 0 and 1 and a rate above 0 and up to 0.5"
            )
        if self.share * self.features % 1:
            raise InputError(
                f"a share of {self.share} of {self.features} features is no whole number of them"
            )

    @property
    def shared(self) -> int:
        """How many of the delta's features are features of the base."""
        return round(self.share * self.features)


@dataclass(frozen=True, eq=False)
class Planted:
    """The features of a recipe, and rows made from them.

    Attributes:
        base: directions of the base's features.
        delta: directions of the delta's, those of the base first.
    """

    recipe: PlantedRecipe
    base: Float[Tensor, "features d"]
    delta: Float[Tensor, "features d"]

    @classmethod
    def of(cls, recipe: PlantedRecipe) -> Planted:
        """Draw the features; the base's depend on the seed alone."""
        shape = recipe.features, recipe.d_model
        base = isotropic(*shape, generator(recipe.seed, "base features"))
        new = isotropic(*shape, generator(recipe.seed, "new features"))
        return cls(recipe, base, torch.cat([base[: recipe.shared], new[recipe.shared :]]))

    def rows(self, documents: int, length: int, name: str) -> HeldOut:
        """Documents of `length` rows each; `name` keeps one draw apart from another."""
        recipe, n = self.recipe, documents * length
        random = generator(recipe.seed, "rows", recipe.share, recipe.together, name)
        of_base = torch.rand(n, recipe.features, generator=random) < recipe.rate
        base = self._stream(of_base, self.base, random)
        delta = self._stream(self._delta_firing(of_base, random), self.delta, random)
        return HeldOut(base, delta, torch.arange(documents).repeat_interleave(length))

    def _delta_firing(
        self, of_base: Bool[Tensor, "n features"], random: torch.Generator
    ) -> Bool[Tensor, "n features"]:
        recipe = self.recipe
        drawn = torch.rand(of_base.shape, generator=random)
        apart = (1 - recipe.together) * recipe.rate / (1 - recipe.rate)
        related = drawn < torch.where(of_base, recipe.together, apart)
        shared = torch.arange(recipe.features) < recipe.shared
        return torch.where(shared, related, drawn < recipe.rate)

    def _stream(
        self,
        fires: Bool[Tensor, "n features"],
        directions: Float[Tensor, "features d"],
        random: torch.Generator,
    ) -> Float[Tensor, "n d"]:
        strengths = 1 + torch.rand(fires.shape, generator=random)
        noise = torch.randn(len(fires), self.recipe.d_model, generator=random)
        return (fires * strengths) @ directions + self.recipe.noise * noise

    def dictionary(self, threshold: float = 0.5) -> ReluDictionary:
        """The base's features themselves: latent i reads feature i, less what its neighbours write
        into it, and gives back what the threshold takes from a feature of mean strength."""
        reads = torch.linalg.pinv(self.base)
        bias = torch.full((len(self.base),), -threshold)
        return ReluDictionary(
            reads, bias, _MEAN / (_MEAN - threshold) * self.base, torch.zeros(self.base.shape[1])
        )

    def covariance(self, of: str = "delta") -> Float[Tensor, "d d"]:
        """Of infinitely many rows: "base", "delta", or "both", base · deltaᵀ; float64."""
        recipe = self.recipe
        base, delta = self.base.double(), self.delta.double()
        if of == "both":
            shared = base[: recipe.shared]
            joint = recipe.rate * (recipe.together - recipe.rate) * _MEAN**2
            return joint * shared.T @ shared
        features = base if of == "base" else delta
        variance = recipe.rate * _SQUARE - (recipe.rate * _MEAN) ** 2
        noise = recipe.noise**2 * torch.eye(recipe.d_model, dtype=torch.float64)
        return variance * features.T @ features + noise

    def cka(self) -> float:
        """Linear CKA of base and delta over infinitely many rows."""
        norms = [self.covariance(of).square().sum() for of in ("both", "base", "delta")]
        return float(norms[0] / (norms[1] * norms[2]).sqrt())
