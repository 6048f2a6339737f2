"""What a latent's direction is similar to, is composed of, and promotes.

1. `single_chance` says how near single random directions come to a dictionary; `verdicts` holds the
   latents' cosines against it.
2. `built_from` takes directions apart into directions of another dictionary.
3. `token_effects` reads them through the final norm and the output matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.geometry.chance import covariance_root, directions_from_root
from lorascope.geometry.cosine import max_cosine, unit_rows
from lorascope.geometry.pursuit import pursue
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.interventions import unembed
from lorascope.results import Null
from lorascope.results.null_names import COVARIANCE

# Random directions that give the chance level of a single one.
DRAWN = 2048
BUILT_FROM = 4
# Random directions that give each token's chance level, and how few latents have no covariance.
DRAWN_FOR_TOKENS, _FEW = 512, 8
# Rows whose random pursuit gives the chance level of what a direction is built from.
_PURSUED = 128
# Logits held at a time.
_BLOCK = 2**24


@torch.no_grad()
def single_chance(
    directions: Float[Tensor, "m d"], root: Float[Tensor, "d d"], random: torch.Generator
) -> Null:
    """Largest cosine of a single covariance-matched random direction with any of `directions`.

    Level: the mean; bounds: the 2.5 % and 97.5 % quantiles of single directions, so that 2.5 % of
    any number of random ones lie above.

    Args:
        root: of the deltas' covariance, `geometry.chance.covariance_root`.
    """
    drawn = directions_from_root(DRAWN, root, random).to(directions)
    cosines, _ = max_cosine(drawn, directions)
    bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = cosines.double().cpu().quantile(bounds).tolist()
    return Null(COVARIANCE, float(cosines.mean()), low, high)


def verdicts(cosines: Float[Tensor, " n"], chance: Null) -> list[str]:
    """Each cosine against 95 % of single random directions: "above", "below" or "within"."""
    return [
        "above" if c > chance.high else "below" if c < chance.low else "within"
        for c in cosines.tolist()
    ]


@dataclass(frozen=True, eq=False)
class Built:
    """Directions as sums of few directions of another dictionary.

    Attributes:
        latents: those chosen for each, in order; −1 where the search had ended.
        weights: coefficients of unit directions, not negative.
        explained: share of each direction's squared norm, 0 to 1.
        chance: the same share reached with as many covariance-matched random directions.
    """

    latents: Int[Tensor, "n k"]
    weights: Float[Tensor, "n k"]
    explained: Float[Tensor, " n"]
    chance: Null


@torch.no_grad()
def built_from(
    directions: Float[Tensor, "n d"],
    others: Float[Tensor, "m d"],
    root: Float[Tensor, "d d"],
    random: torch.Generator,
    k: int = BUILT_FROM,
) -> Built:
    """Non-negative matching pursuit of each direction with k of `others`."""
    rows, unit = unit_rows(directions), unit_rows(others)
    k = min(k, len(others))
    found = pursue(rows, unit, k)
    drawn = directions_from_root(len(others), root, random).to(rows)
    left = pursue(rows[:_PURSUED], drawn, k).residuals[:, -1].double().cpu()
    reached = 1 - left.square()
    bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = reached.quantile(bounds).tolist()
    chance = Null(COVARIANCE, float(reached.mean()), low, high)
    explained = 1 - found.residuals[:, -1].square()
    return Built(found.support, found.coefficients, explained, chance)


@dataclass(frozen=True, eq=False)
class TokenEffects:
    """Tokens a direction promotes and suppresses most, the first the most.

    Attributes:
        promoted, suppressed: token ids.
        promoted_by, suppressed_by: standard deviations from what random directions give that token;
            logits less the vocabulary's mean where no chance level is given.
    """

    promoted: Int[Tensor, "n tokens"]
    promoted_by: Float[Tensor, "n tokens"]
    suppressed: Int[Tensor, "n tokens"]
    suppressed_by: Float[Tensor, "n tokens"]


@dataclass(frozen=True, eq=False)
class TokenChance:
    """What random directions do to each token's logit, less the vocabulary's mean.

    Attributes:
        mean, spread: mean and standard deviation over the directions.
    """

    mean: Float[Tensor, " vocab"]
    spread: Float[Tensor, " vocab"]


@torch.no_grad()
def token_chance(
    model: AdaptedModel, directions: Float[Tensor, "n d"], random: torch.Generator
) -> TokenChance:
    """What random directions do that have the mean and covariance of a dictionary's directions.

    Some tokens have large rows in the output matrix, or lie along what all latents share: they are
    among the first that almost any direction promotes, and say nothing of one. Where there are
    fewer than `_FEW` directions, random ones point anywhere.
    """
    unit = unit_rows(directions.float()).cpu().double()
    if len(unit) < _FEW:
        mean, root = torch.zeros(unit.shape[1]).double(), torch.eye(unit.shape[1]).double()
    else:
        mean = unit.mean(0)
        root = covariance_root((unit - mean).T @ (unit - mean) / len(unit)).double()
    steps = torch.randn(DRAWN_FOR_TOKENS, len(mean), generator=random, dtype=torch.float64)
    drawn = unit_rows((mean + steps @ root).float())
    total, square = torch.zeros(2, model.vocab_size, dtype=torch.float64)
    for logits in _logits(model, drawn):
        total += logits.double().sum(0).cpu()
        square += logits.double().square().sum(0).cpu()
    mean_logit = total / len(drawn)
    spread = (square / len(drawn) - mean_logit.square()).clamp(min=0).sqrt()
    # A token that no direction moves is promoted by none.
    return TokenChance(mean_logit, spread.clamp(min=float(spread.median()) / 100))


@torch.no_grad()
def token_effects(
    model: AdaptedModel,
    directions: Float[Tensor, "n d"],
    most: int = 10,
    chance: TokenChance | None = None,
) -> TokenEffects:
    """Each direction through the base's final norm and output matrix, all blocks passed over.

    Tokens are ranked by how far the direction moves them beyond what random directions do, or by
    their logits where no chance level is given.

    An approximation: what later blocks make of a direction is left out, and the norm sees the
    direction alone, so that sizes compare tokens of one direction and not directions. What the
    norm's and the output matrix' own biases give is taken off.
    """
    most = min(most, model.vocab_size)
    parts = []
    for logits in _logits(model, directions):
        if chance is not None:
            logits = (logits - chance.mean.to(logits)) / chance.spread.to(logits)
        up, down = logits.topk(most), logits.topk(most, largest=False)
        parts.append((up.indices, up.values, down.indices, down.values))
    columns: Sequence[tuple[Tensor, ...]] = list(zip(*parts, strict=True))
    return TokenEffects(*(torch.cat(column).cpu() for column in columns))


@torch.no_grad()
def token_logits(model: AdaptedModel, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n vocab"]:
    """What each direction does to every token's logit, as in `token_effects`; for a few."""
    return torch.cat([part.cpu() for part in _logits(model, directions)])


def _logits(
    model: AdaptedModel, directions: Float[Tensor, "n d"]
) -> Iterator[Float[Tensor, "part vocab"]]:
    """Logits of directions, less the vocabulary's mean, some at a time."""
    offset = _unembedded(model, torch.zeros(1, directions.shape[1]))
    for part in _pieces(directions, model.vocab_size):
        scaled = unit_rows(part.float()) * part.shape[1] ** 0.5
        logits = _unembedded(model, scaled) - offset
        yield logits - logits.mean(1, keepdim=True)


def _unembedded(model: AdaptedModel, streams: Float[Tensor, "n d"]) -> Float[Tensor, "n vocab"]:
    return unembed(model, BASE, streams.to(model.device, model.dtype)).float()


def _pieces(directions: Float[Tensor, "n d"], width: int) -> Iterator[Float[Tensor, "part d"]]:
    return iter(directions.split(max(1, _BLOCK // width)))
