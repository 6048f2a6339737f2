"""Single latents beside matched ones: others of the same dictionary, firing rate and strength, each
put through the same intervention.

Removing latent j takes what it writes, z_jt d_j, away wherever it fires; adding it gives that to
the base. To second order the KL that follows grows with the energy written, E_j = Σ_t ‖z_jt d_j‖² a
scored token; latents are compared by KL_j / E_j, so that what is left of a difference in rate or
strength does not count.

The rival explanation: any latent that fires as often and as strongly does as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.cosine import unit_rows
from lorascope.measures.removals import Change, Changed, RemovalMeasure, Sight, sweep
from lorascope.measures.spots import MODES, MOST_TOKENS, Mode, Spot, read_spots
from lorascope.measures.surveys import Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import parse_site
from lorascope.randomness import generator
from lorascope.results import Estimate, Null
from lorascope.results.null_names import MATCHED

ALTERNATIVES = 40
# Draws of one of each latent's set in every latent's place.
EXCHANGES = 1000
# Windows in which each latent is looked at.
WINDOWS = 3


@dataclass(frozen=True, eq=False)
class Matched:
    """Named latents and, for each, its matched alternatives, under one intervention.

    Attributes:
        kl, energy: of each named latent, a scored token: nats, and squared stream units.
        alternatives: KL over energy of each alternative, in order of likeness; nan where there
            were not enough.
        latents, others: numbers of the named latents and of their alternatives, which they share.
    """

    kl: Float[Tensor, " n"]
    energy: Float[Tensor, " n"]
    alternatives: Float[Tensor, "n m"]
    latents: Int[Tensor, " n"]
    others: Int[Tensor, "n m"]

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """How many alternatives each has."""
        return self.alternatives.isfinite().sum(1)

    @property
    def expected(self) -> Float[Tensor, " n"]:
        """The KL that each would have if it mattered as much as its alternatives, nats a token."""
        return self.alternatives.nanmean(1) * self.energy

    @property
    def p(self) -> Float[Tensor, " n"]:
        """One-sided rank p-value: (1 + alternatives that matter as much) / (1 + alternatives)."""
        own = (self.kl / self.energy.clamp(min=1e-300))[:, None]
        return (1 + (self.alternatives >= own).sum(1)) / (1 + self.counts).double()

    @property
    def q(self) -> Float[Tensor, " n"]:
        """p adjusted over the named latents (Benjamini & Hochberg 1995)."""
        return torch.from_numpy(stats.false_discovery_control(self.p.numpy()))


@torch.no_grad()
def matched_latents(
    model: AdaptedModel,
    found: Survey,
    site: str,
    dictionary: Dictionary,
    latents: Int[Tensor, " n"],
    *,
    most: int = MOST_TOKENS,
    alternatives: int = ALTERNATIVES,
    windows: int = WINDOWS,
    seed: int = 0,
) -> dict[Mode, Matched]:
    """Remove and add the named latents and those most like them, one at a time.

    Each is run on a few windows at random of those in which it fires, named ones and alternatives
    alike; its KL over energy there stands for the whole.

    Args:
        latents: the named ones; none of them is another's alternative.
        most: tokens of the documents used, as for `latent_effects`.
        alternatives: most per named latent.
        windows: most for each latent.
    """
    spots = list(read_spots(model, found, parse_site(site), dictionary, most))
    matching = Matching(spots, site, dictionary, latents, alternatives, windows, seed)
    sweep(model, spots, [matching])
    return matching.found()


class Matching(RemovalMeasure):
    """Sums up, over a sweep, what `matched_latents` returns; its arguments are those.

    Attributes:
        summed: KL of each latent looked at in its windows, nats; the named ones come first.
    """

    def __init__(
        self,
        spots: Sequence[Spot],
        site: str,
        dictionary: Dictionary,
        latents: Int[Tensor, " n"],
        alternatives: int = ALTERNATIVES,
        windows: int = WINDOWS,
        seed: int = 0,
    ) -> None:
        strengths = torch.cat([spot.strengths.cpu() for spot in spots])
        tokens = sum(len(spot.where.targets) for spot in spots)
        self._named = len(latents)
        self._others = most_alike(strengths, latents, alternatives)
        self._needed = torch.cat([latents, self._others[self._others >= 0].unique()])
        energies = [spot.energies(self._needed) for spot in spots]
        random = generator(seed, "matched windows", site)
        chosen = some_windows(torch.cat(energies), windows, random)
        self._chosen = chosen.split([len(part) for part in energies])
        looked_at = [(e * c).sum(0) for e, c in zip(energies, self._chosen, strict=True)]
        self._looked_at, self._energy = sum(looked_at), torch.cat(energies).sum(0) / tokens
        self._units = unit_rows(dictionary.directions)
        self._place = torch.full((dictionary.n_latents,), -1)
        self._place[self._needed] = torch.arange(len(self._needed))
        self.summed = {mode: torch.zeros(len(self._needed), dtype=torch.float64) for mode in MODES}

    def asks(self, number: int, mode: Mode, window: int) -> Mapping[Change, Float[Tensor, " d"]]:
        """The latents that are looked at in this window."""
        latents = self._needed[self._chosen[number][window]].tolist()
        return {Change(latent): self._units[latent] for latent in latents}

    def take(self, number: int, sight: Sight, one: Change, found: Changed) -> None:
        """Add a change's KL."""
        self.summed[sight.mode][self._place[one.latent]] += found.kl

    def found(self) -> dict[Mode, Matched]:
        """What `matched_latents` returns, once all spots are through."""
        named, energy = slice(self._named), self._energy
        at = self._place[self._others.clamp(min=0)]
        matched: dict[Mode, Matched] = {}
        for mode, kl in self.summed.items():
            per_energy = kl / torch.as_tensor(self._looked_at).clamp(min=1e-300)
            drawn = torch.where(self._others >= 0, per_energy[at], torch.nan)
            own = per_energy[named] * energy[named]
            matched[mode] = Matched(own, energy[named], drawn, self._needed[named], self._others)
        return matched


def some_windows(
    energies: Float[Tensor, "windows k"], most: int, random: torch.Generator
) -> Bool[Tensor, "windows k"]:
    """At most so many windows at random of those in which each latent writes anything."""
    keys = torch.rand(energies.shape, generator=random).masked_fill(energies <= 0, -1.0)
    found, at = keys.topk(min(most, len(energies)), dim=0)
    return torch.zeros_like(energies, dtype=torch.bool).scatter(0, at, found >= 0)


def most_alike(
    strengths: Float[Tensor, "rows n"], latents: Int[Tensor, " k"], most: int
) -> Int[Tensor, "k most"]:
    """For each named latent, the other firing latents nearest in log rate and log mean strength.

    Named latents are left out; −1 where there are no more. Alternatives are shared: they are
    picked among twice as many, those nearest to any named latent.
    """
    fired = (strengths > 0).sum(0)
    mean = strengths.sum(0) / fired.clamp(min=1)
    place = torch.stack([fired.clamp(min=1).double().log(), mean.clamp(min=1e-300).log()], 1)
    free = fired > 0
    free[latents] = False
    others = free.nonzero().squeeze(1)
    found = torch.full((len(latents), most), -1)
    if len(others):
        gaps = torch.cdist(place[latents], place[others])
        near = gaps.amin(0).argsort(stable=True)[: 2 * most]
        others, gaps = others[near], gaps[:, near]
        order = gaps.argsort(dim=1, stable=True)[:, :most]
        found[:, : order.shape[1]] = others[order]
    return found


def beside_matched(estimate: Estimate, found: Matched) -> Estimate:
    """The mean KL of removing the named latents, beside what matched ones would have changed.

    Were each latent one like its alternatives, any of them could stand in its place: the chance
    level's range is that of the mean with one of each latent's own set, itself included, drawn in
    every latent's place. Latents have alternatives in common, so every draw weighs all latents
    anew (Bayesian bootstrap, Rubin 1981). An interval over latents would not do: a few with much
    energy decide the mean (beside 32 exchangeable latents it was apart in 8 % instead of 5 %).
    """
    known = found.counts > 0
    if known.sum() < 2:
        return estimate
    gaps = (found.kl - found.expected)[known]
    level = estimate.value - float(gaps.mean())
    low, high = _exchanged(found, known)
    shift = estimate.value - float(found.kl[known].mean())
    low, high = low + shift, high + shift
    difference = (estimate.value - high, estimate.value - low)
    return estimate.beside([Null(MATCHED, level, low, high, rival=True, difference=difference)])


def _exchanged(found: Matched, known: Bool[Tensor, " n"]) -> tuple[float, float]:
    """95 % of the mean KL of latents drawn from each one's set: itself and its alternatives."""
    energy = found.energy[known]
    own = (found.kl[known] / energy.clamp(min=1e-300))[:, None]
    sets = torch.cat([own, found.alternatives[known]], dim=1).double()
    members = torch.cat([found.latents[known][:, None], found.others[known]], dim=1)
    distinct, members = members.unique(return_inverse=True)
    random = generator(0, "exchanged", *sets.shape)
    weights = torch.empty(EXCHANGES, len(distinct), dtype=torch.float64)
    weights.exponential_(generator=random)
    total = torch.zeros(EXCHANGES, dtype=torch.float64)
    for row, which, size in zip(sets, members, energy.double().tolist(), strict=True):
        present = row.isfinite()
        chosen = weights[:, which[present]].multinomial(1, generator=random).squeeze(1)
        total += size * row[present][chosen]
    means = total / len(energy)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(low), float(high)
