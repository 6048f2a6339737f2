"""Latents of the base's dictionary that fire more, less or elsewhere under an adapter.

Of every latent, over the same tokens with and without the adapter: how often it fires, the energy
it writes, and on how many tokens it is switched on or off. Null adapters give the same numbers; the
adapter's is one more draw of theirs where it did nothing in the latent's eyes. Draws are few and
latents many, so latents lend each other their spread (Smyth 2004, Stat. Appl. Genet. Mol. Biol.
3(1):3, with his moment estimates); p-values are adjusted for all latents (Benjamini and Hochberg
1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import special, stats
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.rows import CHUNK
from lorascope.stats.discoveries import adjusted
from lorascope.stats.moderated import moderated_variance

# A latent that fires on fewer tokens, of the base's and the adapter's together, is not looked at.
LEAST = 10

Column = Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class DriftFiring:
    """What the latents do over some tokens with one adapter on, beside the base.

    Attributes:
        before, after: on how many tokens each fires, without and with it.
        switched: on how many it fires in one case alone.
        energy_before, energy_after: Σ ‖z_j d_j‖², squared stream units.
        moved: Σ ‖(z_j(h_adapted) − z_j(h_base)) d_j‖², likewise.
        tokens: how many there are.
        delta: Σ ‖h_Δ‖².
    """

    before: Column
    after: Column
    switched: Column
    energy_before: Column
    energy_after: Column
    moved: Column
    tokens: int
    delta: float


@dataclass(frozen=True, eq=False)
class Drift:
    """Every latent's drift; columns over latents.

    Attributes:
        change: (after − before) / √(after + before): of counts, in units that do not grow with
            the density; nan where it fires too seldom.
        elsewhere: switched / √(after + before).
        null_change: of null adapters, mean over draws.
        p: that change or elsewhere is one more draw of the null adapters', twice the smaller of
            the two-sided and the one-sided p-value; q: adjusted for all latents looked at.
        share: of the delta's energy, Σ ‖Δz_j d_j‖² / Σ ‖h_Δ‖².
    """

    firing: DriftFiring
    change: Column
    elsewhere: Column
    null_change: Column
    p: Column
    q: Column
    share: Column

    def leading(self, most: int, level: float) -> list[int]:
        """Latents that drift at the level, those with the largest share of the delta first."""
        found = np.flatnonzero(self.q <= level)
        return [int(n) for n in sorted(found, key=lambda n: -self.share[n])[:most]]


@torch.no_grad()
def firing(
    dictionary: Dictionary, base: Float[Tensor, "rows d"], delta: Float[Tensor, "rows d"]
) -> DriftFiring:
    """Count and sum over rows of the stream without and with an adapter."""
    norms = dictionary.directions.norm(dim=1).square().double().cpu()
    sums = torch.zeros(6, dictionary.n_latents, dtype=torch.float64)
    for ours, moved in zip(base.split(CHUNK), delta.split(CHUNK), strict=True):
        own = ours.to(dictionary.directions)
        z, theirs = dictionary.encode(own), dictionary.encode(own + moved.to(own))
        on, now = z > 0, theirs > 0
        parts = (on, now, on ^ now, z.square(), theirs.square(), (theirs - z).square())
        sums += torch.stack([part.double().sum(0).cpu() for part in parts])
    sums[3:] *= norms
    before, after, switched, energy_before, energy_after, change = (row.numpy() for row in sums)
    return DriftFiring(
        *(before, after, switched, energy_before, energy_after, change),
        tokens=len(base),
        delta=float(delta.double().square().sum()),
    )


def drift(own: DriftFiring, nulls: Sequence[DriftFiring]) -> Drift:
    """An adapter's drift beside null adapters'; without two of them p and q are nan."""
    change, elsewhere = _statistics(own)
    beside = [_statistics(one) for one in nulls]
    p = q = np.full(len(change), np.nan)
    empty = np.full((1, len(change)), np.nan)
    changes = np.stack([one[0] for one in beside]) if beside else empty
    places = np.stack([one[1] for one in beside]) if beside else empty
    looked_at = np.isfinite(change) & np.isfinite(changes).all(0)
    if len(nulls) > 1 and looked_at.any():
        at = np.flatnonzero(looked_at)
        both, upper = _t(change[at], changes[:, at]), _t(elsewhere[at], places[:, at])
        smaller = np.minimum(2 * both.sf(), upper.sf(one_sided=True))
        p, q = p.copy(), q.copy()
        p[at] = np.minimum(1.0, 2 * smaller)
        q[at] = adjusted(p[at])
    share = own.moved / own.delta if own.delta else np.zeros(len(change))
    return Drift(own, change, elsewhere, changes.mean(0), p, q, share)


def null_drifts(nulls: Sequence[DriftFiring], level: float) -> list[int]:
    """How many latents drift at the level for each null adapter beside the others."""
    if len(nulls) < 3:
        return []
    return [
        int((drift(one, [*nulls[:n], *nulls[n + 1 :]]).q <= level).sum())
        for n, one in enumerate(nulls)
    ]


def _statistics(one: DriftFiring) -> tuple[Column, Column]:
    total = one.before + one.after
    root = np.sqrt(np.where(total >= LEAST, total, np.nan))
    return (one.after - one.before) / root, one.switched / root


@dataclass(frozen=True, eq=False)
class _T:
    """t of one more draw, and its degrees of freedom."""

    t: Column
    degrees: float

    def sf(self, *, one_sided: bool = False) -> Column:
        tail: Column = stats.t.sf(self.t if one_sided else np.abs(self.t), self.degrees)
        return tail


def _t(value: Column, draws: Float[np.ndarray, "draws n"]) -> _T:
    degrees, variance = len(draws) - 1, draws.var(0, ddof=1)
    prior_degrees, prior = _prior(variance, degrees)
    spread = np.sqrt(moderated_variance(variance, degrees, prior_degrees, prior))
    scale = np.maximum(spread * np.sqrt(1 + 1 / len(draws)), 1e-300)
    return _T((value - draws.mean(0)) / scale, degrees + prior_degrees)


def _prior(variance: Column, degrees: int) -> tuple[float, float]:
    """d₀ and s₀² by Smyth's (2004, section 6.2) moments of log s²; zeros are left out."""
    known = variance[variance > 0]
    if len(known) < 2:
        return float("inf"), float(known.mean()) if len(known) else 0.0
    e = np.log(known) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = e.var(ddof=1) - special.polygamma(1, degrees / 2)
    if excess <= 0:
        return float("inf"), float(np.exp(e.mean()))
    half = _inverse_trigamma(float(excess))
    return 2 * half, float(np.exp(e.mean() + special.digamma(half) - np.log(half)))


def _inverse_trigamma(value: float) -> float:
    """x with ψ′(x) = value, by Newton's steps of 1/ψ′ (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        now = float(special.polygamma(1, x))
        step = now * (1 - now / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x
