"""Every latent's effect on the loss to first order: one backward pass a batch serves them all.

Removing latent j takes s_jt u_j from the adapted model's stream at token t (s_jt = z_jt ‖d_j‖,
u_j = d_j/‖d_j‖). To first order the loss changes by −v_j · u_j, v_j = Σ_t s_jt g_t / T with g_t the
gradient of the summed loss at token t and T the scored tokens. A direction drawn at random in place
of u_j gives a change of mean 0 and standard deviation ‖v_j‖/√d: that is the chance level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.removals import RemovalMeasure, sweep
from lorascope.measures.spots import MOST_TOKENS, Mode, Rows, Spot, read_spots
from lorascope.measures.surveys import Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import parse_site
from lorascope.randomness import generator

# Standard errors to either side of a normal variable's mean that hold 95 % of it.
_WIDTH = 1.96
# ‖v_j‖ is taken in this many random dimensions where the stream has more: within 4 % or so.
_SKETCH = 256


@dataclass(frozen=True, eq=False)
class Attribution:
    """One entry a latent; 0 where it never fires.

    Attributes:
        loss: change of −log p if the latent is removed from the adapted model, to first order,
            nats a scored token.
        chance: 95 % of random directions, written with the same strength at the same tokens,
            change it by no more than this, either way.
    """

    loss: Float[Tensor, " n"]
    chance: Float[Tensor, " n"]


def attributed_losses(
    model: AdaptedModel,
    found: Survey,
    site: str,
    dictionary: Dictionary,
    *,
    seed: int = 0,
    most: int = MOST_TOKENS,
) -> Attribution:
    """The first-order effect of every latent of a dictionary at a site of the survey.

    Args:
        found: windows, and the tokens that are scored; those of the first documents that hold at
            most `most` tokens are used.

    Raises:
        InputError: the adapter's outputs equal the base's.
    """
    found.require_effect()
    spots = list(read_spots(model, found, parse_site(site), dictionary, most))
    attributing = Attributing(dictionary, site, seed)
    sweep(model, spots, [attributing])
    return attributing.found()


class Attributing(RemovalMeasure):
    """Sums up, over a sweep, what `attributed_losses` returns."""

    gradient = ("ablation",)

    def __init__(self, dictionary: Dictionary, site: str, seed: int = 0) -> None:
        n, d = dictionary.n_latents, dictionary.d_model
        directions = dictionary.directions
        self._units = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-30)
        self._sketch = torch.eye(d)
        if d > _SKETCH:
            random = generator(seed, "attribution", site)
            self._sketch = torch.randn(d, _SKETCH, generator=random) / math.sqrt(_SKETCH)
        self._loss = torch.zeros(n, dtype=torch.float64)
        self._length = torch.zeros(n, self._sketch.shape[1], dtype=torch.float64)
        self._tokens = 0

    def close(self, number: int, spot: Spot, mode: Mode, gradient: Rows) -> None:
        """Add a spot's share of every latent's first-order effect."""
        gradient, strengths = gradient.to(self._units), spot.strengths.to(self._units)
        self._loss -= (strengths * (gradient @ self._units.T)).sum(0).double().cpu()
        self._length += (strengths.T @ (gradient @ self._sketch.to(gradient))).double().cpu()
        self._tokens += len(spot.where.targets)

    def found(self) -> Attribution:
        """What `attributed_losses` returns, once all spots are through."""
        half = _WIDTH * self._length.norm(dim=1) / math.sqrt(self._units.shape[1])
        return Attribution(self._loss / self._tokens, half / self._tokens)
