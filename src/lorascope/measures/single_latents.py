"""One latent at a time: take what it writes away, or add it alone, and look at the outputs.

1. `leading_latents` chooses the latents that write most.
2. `latent_effects` takes z_j d_j out of the adapted model's stream (ablation) and adds it to the
   base's (addition), beside other directions of equal norm at the same tokens.
3. Each change is foretold to first order: the loss by its gradient, promoted tokens by the final
   norm and the output matrix alone. `latent_estimates` holds what came against what was foretold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.activations.shards import BASE
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.geometry.cosine import unit_rows
from lorascope.measures.outputs import Scored, divergence, first_documents, run, scored_batches
from lorascope.measures.recovery import spliced_rows
from lorascope.measures.rows import chunks
from lorascope.measures.surveys import Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.interventions import Recorded, unembed
from lorascope.models.sites import Site, parse_site
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ISOTROPIC
from lorascope.stats.documents import ratio, smooth
from lorascope.stats.intervals import or_point

MOST_TOKENS = 512
# Most positions of a batch at which a latent's promoted tokens are looked at.
POSITIONS = 64
PROMOTED = 10
PERMUTATIONS = 1000
Mode = Literal["ablation", "addition"]
MODES: tuple[Mode, ...] = ("ablation", "addition")
NAMES: dict[Mode, tuple[str, str, str, str]] = {
    "ablation": (
        "latent_ablation.kl",
        "latent_ablation.promoted",
        "latent_ablation.loss_foretold",
        "latent_ablation.promoted_foretold",
    ),
    "addition": (
        "latent_addition.kl",
        "latent_addition.promoted",
        "latent_addition.loss_foretold",
        "latent_addition.promoted_foretold",
    ),
}
# The latent's own direction stands first, then what it is compared with.
OTHERS = ("other latents", ISOTROPIC)
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class Changes:
    """What each latent's contribution, and others of its norm, change: one column a direction.

    Attributes:
        foretold_loss: gradient · contribution, nats a scored token.
        loss: change of −log p, nats a scored token.
        kl: KL(unchanged ‖ changed), nats a scored token.
        foretold_logit: mean change of the promoted tokens' logits, less the vocabulary's mean,
            through final norm and output matrix alone, where the latent is active.
        logit: the same through the model.
    """

    foretold_loss: Float[Tensor, "n directions"]
    loss: Float[Tensor, "n directions"]
    kl: Float[Tensor, "n directions"]
    foretold_logit: Float[Tensor, "n directions"]
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


@torch.no_grad()
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
        InputError: the adapter's outputs equal the base's, an index the dictionary lacks, or a
            dictionary of one latent, which nothing can be compared with.
    """
    found.require_effect()
    _check(dictionary, latents)
    directions = _directions(dictionary, latents, seed)
    # Two rounds over the batches: their logits together would not fit.
    spots = partial(read_spots, model, found, parse_site(site), dictionary, latents, most)
    promoted = _promoted(model, spots(), directions[:, 0])
    count, columns = directions.shape[:2]
    sums = {mode: torch.zeros(5, count, columns, dtype=torch.float64) for mode in MODES}
    for mode in set(MODES) - set(others):
        sums[mode][:, :, 1:] = torch.nan
    looked_at = torch.zeros(count, 1, dtype=torch.float64)
    tokens, rows = 0, []
    for spot in spots():
        tokens += len(spot.where.targets)
        rows.append(spot.strengths.cpu())
        unchanged = {mode: spot.unchanged(mode) for mode in MODES}
        for index in spot.active:
            looked_at[index] += len(spot.positions(index)[0])
        for mode in MODES:
            # One switch of faces for all changes under it.
            with model.face(spot.recorded[mode].face):
                tried = range(columns if mode in others else 1)
                for index, column in product(spot.active, tried):
                    written = spot.strengths[:, index, None] * directions[index, column]
                    sums[mode][:, index, column] += _change(
                        model, spot, unchanged[mode], written, index, promoted[index]
                    )
    strengths = torch.cat(rows)
    active = (strengths > 0).sum(0)
    return LatentEffects(
        latents,
        active / len(strengths),
        strengths.sum(0) / active,
        promoted.cpu(),
        {m: Changes(*(s[:3] / tokens), *(s[3:] / looked_at)) for m, s in sums.items()},
    )


def latent_estimates(found: LatentEffects, place: Key, seed: int = 0) -> list[Estimate]:
    """Mean effects over latents beside those of other directions, and how well they were foretold.

    Correlations are left out with fewer than four latents to correlate.
    """
    estimates: list[Estimate] = []
    for mode in MODES:
        changes, (kl, promoted, loss_foretold, promoted_foretold) = found.changes[mode], NAMES[mode]
        seen = changes.logit[:, 0].isfinite()
        estimates.append(_mean(kl, "nats/token", changes.kl, place))
        if seen.any():
            moved = _mean(promoted, "logits", changes.logit[seen], place)
            estimates.append(moved.beside([Null.exact("vocabulary's mean", 0.0)]))
        for measure, foretold, came in (
            (loss_foretold, changes.foretold_loss, changes.loss),
            (promoted_foretold, changes.foretold_logit[seen], changes.logit[seen]),
        ):
            if len(came) > 3:
                estimates.append(_correlation(measure, foretold[:, 0], came[:, 0], place, seed))
    return estimates


def correlation(sums: Float[Tensor, "repeats 6"]) -> Float[Tensor, " repeats"]:
    """Pearson's r from sums of 1, x, y, x², y², xy; nan where one of them does not vary."""
    n, x, y, xx, yy, xy = sums.unbind(1)
    spread = (n * xx - x * x).clamp(min=0) * (n * yy - y * y).clamp(min=0)
    return (n * xy - x * y) / torch.where(spread > 0, spread, torch.nan).sqrt()


def _correlation(measure: str, foretold: Tensor, came: Tensor, place: Key, seed: int) -> Estimate:
    random = generator(seed, measure, place)
    x, y = (v / v.abs().max().clamp(min=1e-300) for v in (foretold, came))
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


@dataclass(frozen=True, eq=False)
class _Unchanged:
    mode: Mode
    log_p: Float[Tensor, "tokens vocab"]
    gradient: Rows


@dataclass(frozen=True, eq=False)
class Spot:
    """A batch under both faces, and what the latents write on its rows at a site."""

    site: Site
    where: Scored
    rows: Bool[Tensor, "batch seq"]
    strengths: Float[Tensor, "rows n"]
    recorded: dict[Mode, Recorded]

    @property
    def active(self) -> list[int]:
        """Which of the latents write anything here."""
        return [int(index) for index in self.strengths.any(0).nonzero()]

    def changed(self, mode: Mode, written: Rows) -> Float[Tensor, "batch seq d"]:
        """The stream of the adapted model less what is written, or of the base with it."""
        stream = self.recorded[mode].streams[self.site].clone()
        rows, change = self.rows.to(stream.device), signed(mode, written).to(stream.device)
        stream[rows] = (stream[rows].float() + change).to(stream.dtype)
        return stream

    def unchanged(self, mode: Mode) -> _Unchanged:
        """The model as it is, and the gradient of its summed loss."""
        recorded = self.recorded[mode]
        stream = recorded.streams[self.site].clone().requires_grad_()
        with torch.enable_grad():
            log_p = self.where.log_probabilities(recorded.resume(self.site, stream))
            (found,) = torch.autograd.grad(self.where.losses(log_p).sum(), stream)
        gradient = found[self.rows.to(found.device)].float()
        return _Unchanged(mode, self.where.log_probabilities(recorded.logits), gradient)

    def positions(self, index: int) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
        """Where a latent is active and a scored token is predicted, the first `POSITIONS`.

        Returns:
            Which scored tokens these are, and which rows.
        """
        number = torch.full(self.rows.shape, -1)
        number[self.rows] = torch.arange(int(self.rows.sum()))
        of_scored = number[:, :-1][self.where.predicting]
        active = self.strengths[:, index].cpu() > 0
        tokens = ((of_scored >= 0) & active[of_scored]).nonzero().squeeze(1)[:POSITIONS]
        return tokens, of_scored[tokens]

    def directly(
        self, model: AdaptedModel, mode: Mode, written: Rows, rows: Int[Tensor, " p"]
    ) -> Float[Tensor, "p vocab"]:
        """Change of centred logits at some rows if later blocks passed it on untouched."""
        recorded = self.recorded[mode]
        last = recorded.streams[Site(model.n_blocks - 1)]
        stream = last[self.rows.to(last.device)][rows.to(last.device)]
        after = stream.float() + signed(mode, written)[rows.to(written.device)].to(stream.device)
        both = unembed(model, recorded.face, torch.cat([stream, after.to(stream.dtype)])).float()
        before, changed = (both - both.mean(1, keepdim=True)).chunk(2)
        return changed - before


def _change(
    model: AdaptedModel,
    spot: Spot,
    unchanged: _Unchanged,
    written: Rows,
    index: int,
    promoted: Int[Tensor, " promoted"],
) -> Float[Tensor, " 5"]:
    """The five sums of `Changes`."""
    mode, before = unchanged.mode, unchanged.log_p
    stream = spot.changed(mode, written)
    after = spot.where.log_probabilities(spot.recorded[mode].resume(spot.site, stream))
    foretold = (unchanged.gradient * signed(mode, written).to(unchanged.gradient)).sum()
    loss = (spot.where.losses(after) - spot.where.losses(before)).sum()
    tokens, rows = spot.positions(index)
    direct, came = torch.zeros(2, device=after.device)
    if len(tokens):
        direct = spot.directly(model, mode, written, rows)[:, promoted].mean(1).sum()
        moved = (after - before)[tokens.to(after.device)]
        came = (moved[:, promoted].mean(1) - moved.mean(1)).sum()
    parts = (foretold, loss, divergence(before, after).sum(), direct, came)
    return torch.stack([part.double().cpu() for part in parts])


def signed(mode: Mode, written: Rows) -> Rows:
    """What is added to the stream where `written` is taken away, or given."""
    return -written if mode == "ablation" else written


def _promoted(
    model: AdaptedModel, spots: Iterable[Spot], directions: Float[Tensor, "n d"]
) -> Int[Tensor, "n promoted"]:
    """Each latent's most promoted tokens: largest summed direct change where it is active."""
    sums = torch.zeros(len(directions), model.vocab_size, device=model.device)
    for spot in spots:
        for index, direction in enumerate(directions):
            tokens, rows = spot.positions(index)
            if len(tokens):
                written = spot.strengths[:, index, None] * direction
                sums[index] += spot.directly(model, "addition", written, rows).sum(0).to(sums)
    return sums.topk(min(PROMOTED, model.vocab_size), dim=1).indices


def read_spots(
    model: AdaptedModel,
    found: Survey,
    site: Site,
    dictionary: Dictionary,
    latents: Int[Tensor, " n"],
    most: int,
) -> Iterator[Spot]:
    """The first documents' batches, at most `most` tokens, under both faces."""
    sites = sorted({*found.limits, site, Site(model.n_blocks - 1)})
    norms = dictionary.directions[latents.to(dictionary.directions.device)].norm(dim=1)
    chosen = first_documents(found.windows, most)
    for batch, where in scored_batches(model, chosen, found.responses, found.settings):
        base = run(model, BASE, sites, batch, where)
        adapted = run(model, found.adapter, sites, batch, where)
        rows = spliced_rows(where, base.streams, found.limits)
        here = rows.to(base.streams[site].device)
        deltas = delta(adapted.streams[site].to(here.device)[here], base.streams[site][here])
        parts = [
            dictionary.encode(part)[:, latents.to(norms.device)]
            for part in chunks(deltas.to(norms))
        ]
        strengths = torch.cat(parts) * norms
        yield Spot(site, where, rows, strengths, {"ablation": adapted, "addition": base})


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


def _check(dictionary: Dictionary, latents: Int[Tensor, " n"]) -> None:
    if dictionary.n_latents < 2:
        raise InputError("a dictionary of one latent has no other to compare it with")
    wrong = latents[(latents < 0) | (latents >= dictionary.n_latents)]
    if len(wrong):
        raise InputError(
            f"no latent {int(wrong[0])}: the dictionary has {dictionary.n_latents}, counted from 0"
        )
