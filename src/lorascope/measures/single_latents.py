"""Single latents: remove what one writes, or add it alone, and measure the outputs.

1. `leading_latents` chooses the latents that write most.
2. `latent_effects` takes z_j d_j out of the adapted model's stream (ablation) and adds it to the
   base's (addition), beside other directions of equal norm at the same tokens.
3. Each change is attributed to first order: the loss by its gradient, promoted tokens by the final
   norm and the output matrix alone. `latent_estimates` holds what came against what was attributed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.geometry.cosine import unit_rows
from lorascope.measures.removals import Change, Changed, RemovalMeasure, Sight, sweep
from lorascope.measures.rows import chunks
from lorascope.measures.spots import MODES, MOST_TOKENS, Mode, Rows, Spot, read_spots, signed
from lorascope.measures.surveys import Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.interventions import unembed
from lorascope.models.sites import parse_site
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ISOTROPIC
from lorascope.stats.documents import ratio, smooth
from lorascope.stats.intervals import or_point

# Most positions of a batch at which a latent's promoted tokens are looked at.
POSITIONS = 64
# Logits of one pass of changed streams through the output matrix.
_DIRECT = 2**24
PROMOTED = 10
PERMUTATIONS = 1000
NAMES: dict[Mode, tuple[str, str, str, str]] = {
    "ablation": (
        "latent_ablation.kl",
        "latent_ablation.promoted",
        "latent_ablation.loss_attributed",
        "latent_ablation.promoted_attributed",
    ),
    "addition": (
        "latent_addition.kl",
        "latent_addition.promoted",
        "latent_addition.loss_attributed",
        "latent_addition.promoted_attributed",
    ),
}
# The latent's own direction stands first, then what it is compared with.
OTHERS = ("other latents", ISOTROPIC)


@dataclass(frozen=True, eq=False)
class Changes:
    """What each latent's contribution, and others of its norm, change: one column a direction.

    Attributes:
        attributed_loss: gradient · contribution, nats a scored token.
        loss: change of −log p, nats a scored token.
        kl: KL(unchanged ‖ changed), nats a scored token.
        attributed_logit: mean change of the promoted tokens' logits, less the vocabulary's mean,
            through final norm and output matrix alone, where the latent is active.
        logit: the same through the model.
    """

    attributed_loss: Float[Tensor, "n directions"]
    loss: Float[Tensor, "n directions"]
    kl: Float[Tensor, "n directions"]
    attributed_logit: Float[Tensor, "n directions"]
    logit: Float[Tensor, "n directions"]


@dataclass(frozen=True, eq=False)
class LatentEffects:
    """Effects of some latents of one dictionary.

    Attributes:
        latents: their indices.
        density: share of rows on which each is active.
        strength: mean norm of what it writes where it is active.
        promoted: ids of the tokens its direction promotes most, in the base, the first the most.
        changes: of removing it from the adapted model, and of adding it to the base.
    """

    latents: Int[Tensor, " n"]
    density: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    promoted: Int[Tensor, "n promoted"]
    changes: dict[Mode, Changes]


@torch.no_grad()
def leading_latents(dictionary: Dictionary, deltas: Rows, most: int) -> Int[Tensor, " n"]:
    """The latents that write most: density × mean norm of z_j d_j where active, largest first.

    Raises:
        InputError: no latent fires on these deltas.
    """
    written = torch.zeros(dictionary.n_latents, dtype=torch.float64)
    for part in chunks(deltas):
        written += dictionary.encode(part.to(dictionary.directions)).double().sum(0).cpu()
    written *= dictionary.directions.norm(dim=1).double().cpu()
    found = written.topk(min(most, int((written > 0).sum()))).indices
    if not len(found):
        raise InputError("no latent fires on these deltas: train the dictionary on such deltas")
    return found


def latent_effects(
    model: AdaptedModel,
    found: Survey,
    site: str,
    dictionary: Dictionary,
    latents: Int[Tensor, " n"],
    *,
    seed: int = 0,
    most: int = MOST_TOKENS,
    others: Collection[Mode] = MODES,
) -> LatentEffects:
    """Remove and add each latent's contribution at a site of the survey, one latent at a time.

    Args:
        found: windows, and the tokens that are scored; those of the first documents that hold at
            most `most` tokens are used.
        latents: which, `leading_latents` for instance.
        others: interventions in which another latent's direction and one at random are tried in its
            place too; in the others their columns are nan.

    Raises:
        InputError: the adapter's outputs equal the base's, an index the dictionary lacks or that
            is given twice, or a dictionary of one latent, which nothing can be compared with.
    """
    found.require_effect()
    require_latents(dictionary, latents)
    spots = list(read_spots(model, found, parse_site(site), dictionary, most))
    effects = Effects(model, spots, dictionary, latents, seed=seed, others=others)
    sweep(model, spots, [effects])
    return effects.found()


class Effects(RemovalMeasure):
    """Sums up, over a sweep, what `latent_effects` returns."""

    gradient = MODES

    def __init__(
        self,
        model: AdaptedModel,
        spots: Sequence[Spot],
        dictionary: Dictionary,
        latents: Int[Tensor, " n"],
        *,
        seed: int = 0,
        others: Collection[Mode] = MODES,
    ) -> None:
        self._model, self._spots, self._latents = model, spots, latents.tolist()
        self._index = {latent: index for index, latent in enumerate(self._latents)}
        self._directions = _directions(dictionary, latents, seed)
        count = len(latents)
        columns = {mode: len(OTHERS) + 1 if mode in others else 1 for mode in MODES}
        self._sums = {m: torch.zeros(3, count, c, dtype=torch.float64) for m, c in columns.items()}
        # Summed changes of all logits where a latent is active: through the model, and directly.
        shapes = {mode: (2, count, c, model.vocab_size) for mode, c in columns.items()}
        self._moved = {m: torch.zeros(shape, device=model.device) for m, shape in shapes.items()}
        self._looked = [[looked_at(spot, latent) for latent in self._latents] for spot in spots]

    def asks(self, number: int, mode: Mode, window: int) -> Mapping[Change, Float[Tensor, " d"]]:
        """Every latent's own direction, and the others that are tried."""
        return {
            Change(latent, column): self._directions[index, column]
            for index, latent in enumerate(self._latents)
            for column in range(self._sums[mode].shape[2])
        }

    def opened(self, number: int, sight: Sight) -> None:
        """Add the direct change of the logits where each latent is active."""
        last, begin = sight.passage.last, int(sight.tokens[0])
        keys: list[tuple[int, int]] = []
        added: list[Tensor] = []
        owners: list[Tensor] = []
        for index, (tokens, rows) in enumerate(self._looked[number]):
            here = torch.isin(tokens, sight.tokens)
            if not here.any():
                continue
            strengths = sight.spot.strengths[rows[here], self._latents[index]][:, None]
            for column in range(self._sums[sight.mode].shape[2]):
                written = strengths * self._directions[index, column].to(strengths)
                keys += [(index, column)] * len(written)
                added.append(signed(sight.mode, written).to(last.device))
                owners.append(tokens[here] - begin)
        if not keys:
            return
        places = torch.tensor(keys, device=last.device)
        after, of = torch.cat(added), torch.cat(owners).to(last.device)
        before = self._centred(sight, last)
        moved = self._moved[sight.mode][1]
        for part in torch.arange(len(of)).split(max(1, _DIRECT // self._model.vocab_size)):
            streams = (last[of[part]].float() + after[part]).to(last.dtype)
            change = self._centred(sight, streams) - before[of[part]]
            moved.index_put_(tuple(places[part].T.to(moved.device)), change.to(moved), True)

    def _centred(self, sight: Sight, streams: Float[Tensor, "p d"]) -> Float[Tensor, "p vocab"]:
        """Logits less their mean of streams after the last block."""
        blocks = sight.passage.beginning.start.blocks
        logits = unembed(self._model, sight.passage.variant, streams, blocks).float()
        return logits - logits.mean(1, keepdim=True)

    def take(self, number: int, sight: Sight, one: Change, found: Changed) -> None:
        """Add a change's loss and KL, and its logits where the latent is active."""
        index = self._index[one.latent]
        self._sums[sight.mode][1:, index, one.column] += torch.tensor([found.loss, found.kl])
        tokens, _ = self._looked[number][index]
        here = tokens[torch.isin(tokens, sight.tokens)] - int(sight.tokens[0]) - found.first
        if len(here):
            at = here.to(found.log_p.device)
            change = (found.log_p[at] - found.before[at]).sum(0)
            self._moved[sight.mode][0, index, one.column] += change.to(self._model.device)

    def close(self, number: int, spot: Spot, mode: Mode, gradient: Rows) -> None:
        """Add the loss that the gradient foretells."""
        strengths = spot.strengths[:, self._latents].cpu()
        directions = self._directions[:, : self._sums[mode].shape[2]].cpu()
        along = torch.einsum("rd,ncd->rnc", gradient, directions.to(gradient))
        attributed = (strengths[..., None].to(along) * along).double().sum(0)
        self._sums[mode][0] += signed(mode, attributed)

    def found(self) -> LatentEffects:
        """What `latent_effects` returns, once all spots are through."""
        model = self._model
        promoted = self._moved["addition"][1][:, 0].topk(min(PROMOTED, model.vocab_size), dim=1)
        tokens = sum(len(spot.where.targets) for spot in self._spots)
        looked = [sum(len(one[i][0]) for one in self._looked) for i in range(len(self._latents))]
        strengths = torch.cat([spot.strengths[:, self._latents].cpu() for spot in self._spots])
        active = (strengths > 0).sum(0)
        return LatentEffects(
            torch.tensor(self._latents),
            active / len(strengths),
            strengths.sum(0) / active,
            promoted.indices.cpu(),
            {mode: self._changes(mode, promoted.indices, tokens, looked) for mode in MODES},
        )

    def _changes(
        self, mode: Mode, promoted: Int[Tensor, "n promoted"], tokens: int, looked: list[int]
    ) -> Changes:
        """Sums over scored tokens, and mean changes of the promoted tokens' logits."""
        attributed, loss, kl = (_three(values / tokens) for values in self._sums[mode])
        came, direct = self._moved[mode].double()
        at = promoted[:, None].expand(-1, direct.shape[1], -1)
        count = torch.tensor(looked)[:, None]
        there = direct.gather(2, at).mean(2).cpu() / count
        moved = (came.gather(2, at).mean(2) - came.mean(2)).cpu() / count
        return Changes(attributed, loss, kl, _three(there), _three(moved))


def _three(values: Float[Tensor, "n tried"]) -> Float[Tensor, "n directions"]:
    """With columns of nan for the directions that were not tried."""
    missing = len(OTHERS) + 1 - values.shape[1]
    return functional.pad(values, (0, missing), value=torch.nan)


def looked_at(spot: Spot, latent: int) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Where a latent is active and a scored token is predicted, the first `POSITIONS` of a batch.

    Returns:
        Which scored tokens these are, and which rows.
    """
    number = torch.full(spot.rows.shape, -1)
    number[spot.rows] = torch.arange(int(spot.rows.sum()))
    of_scored = number[:, :-1][spot.where.predicting]
    active = spot.strengths[:, latent].cpu() > 0
    tokens = ((of_scored >= 0) & active[of_scored]).nonzero().squeeze(1)[:POSITIONS]
    return tokens, of_scored[tokens]


def latent_estimates(found: LatentEffects, place: Key, seed: int = 0) -> list[Estimate]:
    """Mean effects over latents beside those of other directions, and how good attributions were.

    Correlations are left out with fewer than four latents to correlate.
    """
    estimates: list[Estimate] = []
    for mode in MODES:
        changes, (kl, promoted, loss_attributed, promoted_attributed) = (
            found.changes[mode],
            NAMES[mode],
        )
        seen = changes.logit[:, 0].isfinite()
        estimates.append(_mean(kl, "nats/token", changes.kl, place))
        if seen.any():
            moved = _mean(promoted, "logits", changes.logit[seen], place)
            estimates.append(moved.beside([Null.exact("vocabulary's mean", 0.0)]))
        for measure, attributed, came in (
            (loss_attributed, changes.attributed_loss, changes.loss),
            (promoted_attributed, changes.attributed_logit[seen], changes.logit[seen]),
        ):
            if len(came) > 3:
                estimates.append(_correlation(measure, attributed[:, 0], came[:, 0], place, seed))
    return estimates


def correlation(sums: Float[Tensor, "repeats 6"]) -> Float[Tensor, " repeats"]:
    """Pearson's r from sums of 1, x, y, x², y², xy; nan where one of them does not vary."""
    n, x, y, xx, yy, xy = sums.unbind(1)
    spread = (n * xx - x * x).clamp(min=0) * (n * yy - y * y).clamp(min=0)
    return (n * xy - x * y) / torch.where(spread > 0, spread, torch.nan).sqrt()


def _correlation(measure: str, attributed: Tensor, came: Tensor, place: Key, seed: int) -> Estimate:
    # Under the id that the measure had first, so that permutations stay those of earlier runs.
    random = generator(seed, measure.replace("_attributed", "_foretold"), place)
    x, y = (v / v.abs().max().clamp(min=1e-300) for v in (attributed, came))
    columns = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)
    shuffled = torch.rand(PERMUTATIONS, len(y), generator=random).argsort(1)
    sums = columns.sum(0).expand(PERMUTATIONS, 6).clone()
    sums[:, 5] = (x * y[shuffled]).sum(1)
    null = correlation(sums)
    bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = null.nanquantile(bounds).tolist()
    chance = Null("latents permuted", null.nanmean().item(), low, high)
    value, interval = smooth(correlation, columns, torch.ones_like(x))
    return Estimate(measure, value, interval, len(x), "correlation", (chance,), place)


def _mean(measure: str, unit: str, values: Float[Tensor, "n directions"], place: Key) -> Estimate:
    ones = torch.ones(len(values), dtype=torch.float64)
    (value, interval), *others = (ratio(column, ones) for column in values.T)
    chances = [
        Null(name, level, *or_point(level, around))
        for name, (level, around) in zip(OTHERS, others, strict=True)
        if not math.isnan(level)
    ]
    return Estimate(measure, value, interval, len(values), unit, tuple(chances), place)


def _directions(
    dictionary: Dictionary, latents: Int[Tensor, " n"], seed: int
) -> Float[Tensor, "n 3 d"]:
    """Unit directions: the latent's own, another latent's, one at random."""
    units = unit_rows(dictionary.directions)
    random = generator(seed, "other directions")
    away = torch.randint(1, dictionary.n_latents, latents.shape, generator=random)
    other = (latents.cpu() + away) % dictionary.n_latents
    free = isotropic(len(latents), dictionary.d_model, random).to(units)
    return torch.stack([units[latents.to(units.device)], units[other.to(units.device)], free], 1)


def require_latents(dictionary: Dictionary, latents: Int[Tensor, " n"]) -> None:
    """Refuse latents that cannot be looked at one by one, each beside others.

    Raises:
        InputError: a dictionary of one latent, an index it lacks, or one that is given twice.
    """
    if dictionary.n_latents < 2:
        raise InputError("a dictionary of one latent has no other to compare it with")
    wrong = latents[(latents < 0) | (latents >= dictionary.n_latents)]
    if len(wrong):
        raise InputError(
            f"no latent {int(wrong[0])}: the dictionary has {dictionary.n_latents}, counted from 0"
        )
    if len(latents.unique()) < len(latents):
        raise InputError("the latents to look at hold one twice: give each once")
