"""Single latents beside matched ones: others of the same dictionary, firing rate and strength, each
put through the same intervention.

Removing latent j takes what it writes, z_jt d_j, away wherever it fires; adding it gives that to
the base. To second order the KL that follows grows with the energy written, E_j = Σ_t ‖z_jt d_j‖² a
scored token; latents are compared by KL_j / E_j, so that what is left of a difference in rate or
strength does not count.

The rival explanation: any latent that fires as often and as strongly does as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
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
from lorascope.results import Estimate, Null
from lorascope.results.null_names import MATCHED
from lorascope.stats.intervals import normal_interval

ALTERNATIVES = 40
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
    modes: Sequence[Mode] = MODES,
) -> dict[Mode, Matched]:
    """Remove and add the named latents and those most like them, one at a time.

    A latent's change is run on the windows in which it fires; on all others its KL is 0.

    Args:
        latents: the named ones; none of them is another's alternative.
        most: tokens of the documents used, as for `latent_effects`.
        alternatives: most per named latent.
        modes: which interventions; the audit removes, since an adapter's latents act together.
    """
    every = torch.arange(dictionary.n_latents)
    spots = list(read_spots(model, found, parse_site(site), dictionary, every, most))
    strengths = torch.cat([spot.strengths.cpu() for spot in spots]).double()
    tokens = sum(len(spot.where.targets) for spot in spots)
    others = most_alike(strengths, latents, alternatives)
    needed = torch.cat([latents, others[others >= 0].unique()])
    units = unit_rows(dictionary.directions)
    energy = strengths.square().sum(0) / tokens
    matched: dict[Mode, Matched] = {}
    for mode in modes:
        kl = torch.zeros(dictionary.n_latents, dtype=torch.float64)
        for spot in spots:
            _changed(model, spot, mode, needed, units, kl)
        per_energy = (kl / tokens) / energy.clamp(min=1e-300)
        drawn = torch.where(others >= 0, per_energy[others.clamp(min=0)], torch.nan)
        matched[mode] = Matched(kl[latents] / tokens, energy[latents], drawn)
    return matched


def most_alike(
    strengths: Float[Tensor, "rows n"], latents: Int[Tensor, " k"], most: int
) -> Int[Tensor, "k most"]:
    """For each named latent, the other firing latents nearest in log rate and log mean strength.

    Named latents are left out; −1 where there are no more.
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
        order = gaps.argsort(dim=1, stable=True)[:, :most]
        found[:, : order.shape[1]] = others[order]
    return found


def beside_matched(estimate: Estimate, found: Matched) -> Estimate:
    """The mean KL of removing the named latents, beside what matched ones would have changed."""
    known = found.counts > 0
    if known.sum() < 2:
        return estimate
    gaps = (found.kl - found.expected)[known]
    level = float(found.expected[known].mean())
    low, high = normal_interval(found.expected[known])
    return replace(estimate, value=float(found.kl[known].mean())).beside(
        [Null(MATCHED, level, low, high, rival=True, difference=normal_interval(gaps))]
    )


def _changed(
    model: AdaptedModel,
    spot: Spot,
    mode: Mode,
    latents: Int[Tensor, " k"],
    units: Float[Tensor, "n d"],
    kl: Float[Tensor, " n"],
) -> None:
    """Add Σ KL(unchanged ‖ changed) over scored tokens, nats, of every latent's change to `kl`.

    Windows in which several latents fire go through the model side by side.
    """
    recorded, where = spot.recorded[mode], spot.where
    window_of_row = spot.rows.nonzero()[:, 0]
    fires = torch.zeros(len(spot.rows), len(latents), dtype=torch.bool)
    for column, latent in enumerate(latents.tolist()):
        fires[window_of_row[spot.strengths[:, latent].cpu() > 0], column] = True
    pairs = fires.nonzero()
    predicting = where.predicting[:, where.first : where.last]
    before = torch.zeros(*predicting.shape, model.vocab_size, device=recorded.logits.device)
    before[predicting.to(before.device)] = where.log_probabilities(recorded.logits)
    width = recorded.ids.shape[1]
    size = min(_TOKENS // width, _LOGITS // (predicting.shape[1] * model.vocab_size))
    with model.face(recorded.face):
        for part in pairs.split(max(1, size)):
            windows, named = part[:, 0], latents[part[:, 1]]
            streams = recorded.streams[spot.site][windows.to(units.device)].clone()
            for index, (window, latent) in enumerate(zip(windows.tolist(), named, strict=True)):
                chosen = window_of_row == window
                at = spot.rows[window].to(streams.device)
                written = spot.strengths[chosen][:, latent, None] * units[latent]
                added = signed(mode, written).to(streams.device)
                streams[index, at] = (streams[index, at].float() + added).to(streams.dtype)
            wide = replace(recorded, ids=recorded.ids[windows], mask=recorded.mask[windows])
            after = wide.resume(spot.site, streams)
            counted = predicting[windows].to(after.device)
            here = torch.log_softmax(after[counted].float(), dim=-1)
            each = divergence(before[windows][counted], here).double().cpu()
            owner = named[:, None].expand(len(named), predicting.shape[1])[counted.cpu()]
            kl.index_add_(0, owner, each)
