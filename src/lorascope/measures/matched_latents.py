"""Single latents beside matched ones: others of the same dictionary, firing rate and strength, each
put through the same intervention.

Removing latent j takes what it writes, z_jt d_j, away wherever it fires; adding it gives that to
the base. To second order the KL that follows grows with the energy written, E_j = Σ_t ‖z_jt d_j‖² a
scored token; latents are compared by KL_j / E_j, so that what is left of a difference in rate or
strength does not count.

The rival explanation: any latent that fires as often and as strongly does as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.cosine import unit_rows
from lorascope.measures.outputs import divergence
from lorascope.measures.single_latents import (
    MODES,
    MOST_TOKENS,
    Mode,
    Spot,
    read_spots,
    signed,
)
from lorascope.measures.surveys import Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import parse_site
from lorascope.randomness import generator
from lorascope.results import Estimate, Null
from lorascope.results.null_names import MATCHED
from lorascope.stats.intervals import normal_interval

ALTERNATIVES = 40
# Windows in which each latent is looked at.
WINDOWS = 3
# Tokens, and logits, of one pass with several interventions side by side.
_TOKENS, _LOGITS = 8192, 2**25


@dataclass(frozen=True, eq=False)
class Matched:
    """Named latents and, for each, its matched alternatives, under one intervention.

    Attributes:
        kl, energy: of each named latent, a scored token: nats, and squared stream units.
        alternatives: KL over energy of each alternative, in order of likeness; nan where there
            were not enough.
    """

    kl: Float[Tensor, " n"]
    energy: Float[Tensor, " n"]
    alternatives: Float[Tensor, "n m"]

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
    every = torch.arange(dictionary.n_latents)
    spots = list(read_spots(model, found, parse_site(site), dictionary, every, most))
    strengths = torch.cat([spot.strengths.cpu() for spot in spots])
    tokens = sum(len(spot.where.targets) for spot in spots)
    others = most_alike(strengths, latents, alternatives)
    needed = torch.cat([latents, others[others >= 0].unique()])
    energies = [_by_window(spot)[:, needed] for spot in spots]
    chosen = some_windows(torch.cat(energies), windows, generator(seed, "matched windows", site))
    parts = chosen.split([len(part) for part in energies])
    looked_at = sum((e * part).sum(0) for e, part in zip(energies, parts, strict=True))
    energy = torch.cat(energies).sum(0) / tokens
    units, place = unit_rows(dictionary.directions), torch.full((len(every),), -1)
    place[needed] = torch.arange(len(needed))
    matched: dict[Mode, Matched] = {}
    for mode in MODES:
        kl = torch.zeros(len(needed), dtype=torch.float64)
        for spot, part in zip(spots, parts, strict=True):
            _changed(model, spot, mode, part.nonzero(), needed, units, kl)
        per_energy = kl / torch.as_tensor(looked_at).clamp(min=1e-300)
        drawn = torch.where(others >= 0, per_energy[place[others.clamp(min=0)]], torch.nan)
        named = slice(len(latents))
        matched[mode] = Matched(per_energy[named] * energy[named], energy[named], drawn)
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

    The difference is paired by latent, each beside its own alternatives on as many windows.
    """
    known = found.counts > 0
    if known.sum() < 2:
        return estimate
    gaps = (found.kl - found.expected)[known]
    level = estimate.value - float(gaps.mean())
    low, high = normal_interval(found.expected[known])
    shift = level - float(found.expected[known].mean())
    return estimate.beside(
        [
            Null(
                MATCHED,
                level,
                low + shift,
                high + shift,
                rival=True,
                difference=normal_interval(gaps),
            )
        ]
    )


def _by_window(spot: Spot) -> Float[Tensor, "windows n"]:
    """Energy that each latent writes in each window of a batch, squared stream units."""
    window_of_row = spot.rows.nonzero()[:, 0]
    sums = torch.zeros(len(spot.rows), spot.strengths.shape[1], dtype=torch.float64)
    return sums.index_add_(0, window_of_row, spot.strengths.cpu().double().square())


def _changed(
    model: AdaptedModel,
    spot: Spot,
    mode: Mode,
    pairs: Int[Tensor, "pairs 2"],
    latents: Int[Tensor, " k"],
    units: Float[Tensor, "n d"],
    kl: Float[Tensor, " k"],
) -> None:
    """Add Σ KL(unchanged ‖ changed) over scored tokens, nats, of latents' changes to `kl`.

    Several windows, each with one latent's change, go through the model side by side.

    Args:
        pairs: (window of the batch, index into `latents`).
    """
    recorded, where = spot.recorded[mode], spot.where
    lengths = recorded.mask.sum(1).cpu()
    # Windows of like length side by side, padded to the longest of them alone.
    pairs = pairs[lengths[pairs[:, 0]].argsort(stable=True)]
    size = min(
        _TOKENS // recorded.ids.shape[1],
        _LOGITS // ((where.last - where.first) * model.vocab_size),
    )
    window_of_row = spot.rows.nonzero()[:, 0]
    with model.face(recorded.face):
        for part in pairs.split(max(1, size)):
            windows = part[:, 0]
            width = int(lengths[windows].max())
            streams = recorded.streams[spot.site][windows.to(units.device), :width].clone()
            for index, (window, at) in enumerate(part.tolist()):
                latent, rows = int(latents[at]), spot.rows[window, :width].to(streams.device)
                strength = spot.strengths[window_of_row == window][:, latent, None]
                added = signed(mode, strength * units[latent]).to(streams.device)
                streams[index, rows] = (streams[index, rows].float() + added).to(streams.dtype)
            end = min(where.last, width)
            short = replace(
                recorded,
                ids=recorded.ids[windows, :width],
                mask=recorded.mask[windows, :width],
                last=end,
            )
            counted = where.predicting[windows, where.first : end].to(streams.device)
            unchanged = recorded.logits[windows, : end - where.first]
            before = torch.log_softmax(unchanged[counted].float(), dim=-1)
            after = torch.log_softmax(short.resume(spot.site, streams)[counted].float(), dim=-1)
            owner = part[:, 1, None].expand(counted.shape)[counted.cpu()]
            kl.index_add_(0, owner, divergence(before, after).double().cpu())
