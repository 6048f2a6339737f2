"""Latents of one adapter's dictionary that are active under it and not under another adapter.

1. On the same tokens, let the dictionary read both deltas, the other's multiplied until its usual
   norm is that of its own; count firing and energy by document. An adapter that does the same
   more strongly has nothing of its own.
2. A latent is one-sided where its energy on the other's delta is less than a fifth of that on its
   own. Two trainings of the same data have such latents in like measure: each writes the same
   thing along directions of its own.
3. What one adapter does and the other does not costs one of them more: the excess of a latent is
   how much farther its adapter moves the stream where it fires, over what is usual for the two.
   It must be positive.
4. Latents that are near-copies of one another (`stats.clusters`) are one finding, not several.
5. The other adapter's one-sided latents, asked the mirrored question, say how large an excess comes
   about when two adapters are interchangeable; as many latents as lie beyond it are listed as keep
   the share of false ones at the stated rate (target and decoy; Barber & Candès 2015, "knockoff+").
   Where the other adapter has next to none, nothing can be said of that, and nothing is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import norm_matched
from lorascope.measures.comparison import DeltaPair, spread
from lorascope.measures.rows import CHUNK
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import MIRRORED
from lorascope.stats.clusters import clusters
from lorascope.stats.intervals import wilson_interval

NULL_ROWS = 4096
NULL_REPEATS = 5
FEWEST_DOCUMENTS = 10
ONE_SIDED = 0.2
# Of one-sided findings of the other adapter: fewer say nothing of how large an excess may be.
FEWEST_MIRRORED = 5
# More documents than this are resampled in groups of documents.
MOST_GROUPS = 256
BOOTSTRAPS = 400
_LATENTS = 1024
Sides = Float[Tensor, "2 n"]


@dataclass(frozen=True, eq=False)
class PairedActivity:
    """What each latent does on its own adapter's delta (row 0) and on the other's (row 1).

    The other's delta is multiplied by exp(mean log(‖h_Δ‖/‖h_Δ′‖)), so that both are as strong.

    Attributes:
        density: share of tokens on which it fires.
        contrast, contrast_low, contrast_high: density on its own delta less that on the other's,
            and the 95 % interval by bootstrap over documents.
        energy: mean over tokens of z²‖d‖².
        energy_low, energy_high: its 95 % interval by bootstrap over documents.
        chance, chance_high: its energy on norm-matched random vectors, and where 97.5 % of draws
            lie below.
        documents: in how many documents (groups of documents where there are more than 256) it
            fires on its own delta.
        excess: mean of log(‖h_Δ‖/‖h_Δ′‖) less its mean over tokens, tokens weighted by z².
        cluster: which latents are near-copies of one another.
    """

    density: Sides
    contrast: Float[Tensor, " n"]
    contrast_low: Float[Tensor, " n"]
    contrast_high: Float[Tensor, " n"]
    energy: Sides
    energy_low: Sides
    energy_high: Sides
    chance: Sides
    chance_high: Sides
    documents: Int[Tensor, " n"]
    excess: Float[Tensor, " n"]
    cluster: Int[Tensor, " n"]

    @property
    def counted(self) -> Bool[Tensor, " n"]:
        """Latents that fire in enough documents to say something of them."""
        return self.documents >= FEWEST_DOCUMENTS

    @property
    def one_sided(self) -> Bool[Tensor, " n"]:
        """Counted latents that write less than a fifth of their energy on the other's delta."""
        return self.counted & (self.energy[1] < ONE_SIDED * self.energy[0])

    @property
    def findings(self) -> int:
        """Clusters with a counted latent."""
        return len(self.cluster[self.counted].unique())

    def largest(self) -> tuple[Int[Tensor, " c"], Float[Tensor, " c"]]:
        """Every cluster with a one-sided latent, and the largest excess of these latents."""
        chosen = self.one_sided
        labels, index = self.cluster[chosen].unique(return_inverse=True)
        best = torch.full((len(labels),), -torch.inf, dtype=self.excess.dtype)
        return labels, best.scatter_reduce_(0, index, self.excess[chosen], "amax")


@torch.no_grad()
def activity(dictionary: Dictionary, pair: DeltaPair, seed: int = 0) -> PairedActivity:
    """Read both deltas of a pair with the first adapter's dictionary."""
    more, times = _more(pair)
    deltas = pair.first, times * pair.second
    group = _groups(pair.documents)
    tokens = torch.bincount(group).float()
    n = dictionary.n_latents
    counts = torch.zeros(2, len(tokens), n)
    energies = torch.zeros(2, len(tokens), n)
    weighted = torch.zeros(n, dtype=torch.float64)
    written = dictionary.directions.norm(dim=1).square()
    for start in range(0, len(pair), CHUNK):
        rows = slice(start, start + CHUNK)
        for side, delta in enumerate(deltas):
            z = dictionary.encode(delta[rows])
            counts[side].index_add_(0, group[rows], (z > 0).float())
            squares = z.square()
            energies[side].index_add_(0, group[rows], squares * written)
            if side == 0:
                weighted += (more[rows] @ squares).double()
    null = torch.stack([_random_energies(dictionary, d, seed) for d in deltas])
    own = energies[0].double().sum(0) / written.double().clamp(min=1e-30)
    contrast, bounds = _resampled(counts, energies, tokens, seed)
    density, energy = (sums.sum(1) / tokens.sum() for sums in (counts, energies))
    return PairedActivity(
        density,
        density[0] - density[1],
        contrast[0],
        contrast[1],
        energy,
        bounds[0],
        bounds[1],
        null.mean(1),
        _upper(null),
        (counts[0] > 0).sum(0),
        (weighted / own.clamp(min=1e-30)).float(),
        clusters(dictionary.directions),
    )


def _groups(documents: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    _, index = documents.unique(return_inverse=True)
    return index % MOST_GROUPS


def _more(pair: DeltaPair) -> tuple[Float[Tensor, " rows"], float]:
    """log(‖h_Δ‖/‖h_Δ′‖) less its mean, and the exponential of the mean.

    Norms below a hundredth of their mean count as that.
    """
    logs = []
    for rows in (pair.first, pair.second):
        norms = rows.norm(dim=-1)
        logs.append(norms.clamp(min=0.01 * norms.mean().item() + 1e-30).log())
    ratio = logs[0] - logs[1]
    usual = ratio.mean()
    return ratio - usual, float(usual.exp())


def _random_energies(
    dictionary: Dictionary, rows: Float[Tensor, "rows d"], seed: int
) -> Float[Tensor, "repeats n"]:
    """Energy of every latent on random vectors with the rows' norms."""
    some = spread(rows, NULL_ROWS)
    written = dictionary.directions.norm(dim=1).square()
    drawn = []
    for repeat in range(NULL_REPEATS):
        random = norm_matched(some, generator(seed, "exclusive", repeat))
        total = torch.zeros(dictionary.n_latents)
        for chunk in random.split(CHUNK):
            total += dictionary.encode(chunk).square().sum(0)
        drawn.append(total * written / len(some))
    return torch.stack(drawn)


def _upper(null: Float[Tensor, "2 repeats n"]) -> Sides:
    """Upper end of the 95 % prediction interval of each latent's draws."""
    repeats = null.shape[1]
    t = float(stats.t.ppf(0.975, repeats - 1))
    return null.mean(1) + t * null.std(1) * (1 + 1 / repeats) ** 0.5


def _resampled(
    counts: Float[Tensor, "2 groups n"],
    energies: Float[Tensor, "2 groups n"],
    tokens: Float[Tensor, " groups"],
    seed: int,
) -> tuple[Float[Tensor, "2 n"], Float[Tensor, "2 2 n"]]:
    """(low, high) of the contrast of densities, and of both energies."""
    groups, n = counts.shape[1:]
    picks = torch.randint(groups, (BOOTSTRAPS, groups), generator=generator(seed, "exclusive"))
    weights = torch.zeros(BOOTSTRAPS, groups).scatter_add_(1, picks, torch.ones(picks.shape))
    weights /= (weights @ tokens)[:, None]
    bounds = torch.tensor([0.025, 0.975])
    contrasts, both = [], []
    for start in range(0, n, _LATENTS):
        some = slice(start, start + _LATENTS)
        drawn = weights @ (counts[0, :, some] - counts[1, :, some])
        contrasts.append(drawn.quantile(bounds, dim=0))
        both.append((weights @ energies[:, :, some]).quantile(bounds, dim=1))
    return torch.cat(contrasts, dim=1), torch.cat(both, dim=2)


def mirrored_rates(
    scores: Float[Tensor, " n"],
    mirrored: Float[Tensor, " m"],
    times: float = 1.0,
    copies: int = 1,
) -> Float[Tensor, " n"]:
    """For each score the smallest false discovery rate at which it is listed, at most 1.

    Listing the l scores that reach a threshold, which `m` of the mirrored ones reach too, has the
    estimated rate (max(1, times) · copies + times · m)/l: `copies` is how often one finding may
    stand in the scores. Scores of 0 or less are not listed at any rate below 1.
    """
    order = scores.argsort(descending=True)
    ranked = scores[order]
    # Equal scores are listed together.
    listed = len(scores) - torch.searchsorted(ranked.flip(0).contiguous(), ranked)
    reached = len(mirrored) - torch.searchsorted(mirrored.sort().values, ranked)
    unseen = max(1.0, times) * copies
    rates = ((unseen + times * reached.double()) / listed.double()).clamp(max=1.0)
    rates[ranked <= 0] = 1.0
    smallest = rates.flip(0).cummin(0).values.flip(0)
    return torch.empty_like(smallest).scatter_(0, order, smallest)


@dataclass(frozen=True, eq=False)
class OnlyHere:
    """Which latents of one adapter are active under it alone.

    Attributes:
        found: what the latents of each of its dictionaries (one a seed) do.
        rates: false discovery rate at which each latent's cluster is listed; nan where the latent
            is not one-sided or has no excess.
        rate: the stated false discovery rate.
        mirrored: clusters of the other adapter with a one-sided latent.
    """

    found: Sequence[PairedActivity]
    rates: Sequence[Float[Tensor, " n"]]
    rate: float
    mirrored: int

    @property
    def refused(self) -> bool:
        """Whether the other adapter has too few one-sided latents for a rate to be told."""
        return self.mirrored < FEWEST_MIRRORED

    def listed(self, index: int) -> Int[Tensor, " listed"]:
        """The latents listed of one dictionary, the largest excess first; none where refused."""
        if self.refused:
            return torch.zeros(0, dtype=torch.long)
        chosen = (self.rates[index] <= self.rate).nonzero().squeeze(1)
        return chosen[self.found[index].excess[chosen].argsort(descending=True)]

    def listed_rates(self) -> Float[Tensor, " clusters"]:
        """Of every cluster listed, in all dictionaries, the rate at which it is."""
        found = []
        for index, (one, rates) in enumerate(zip(self.found, self.rates, strict=True)):
            listed = self.listed(index)
            first = {int(one.cluster[latent]): float(rates[latent]) for latent in listed}
            found += list(first.values())
        return torch.tensor(found, dtype=torch.float64)


def only_here(
    ours: Sequence[PairedActivity], theirs: Sequence[PairedActivity], rate: float
) -> OnlyHere:
    """The latents of an adapter's dictionaries that are active under it alone.

    Dictionaries of several seeds are searched together, and may each hold a finding once.

    Args:
        theirs: the other adapter's dictionaries, read on the turned pair.
        rate: share of the listed findings that may be false.
    """
    largest = [one.largest() for one in ours]
    scores = torch.cat([best for _, best in largest])
    mirrored = torch.cat([one.largest()[1] for one in theirs])
    counted, other_counted = (sum(one.findings for one in side) for side in (ours, theirs))
    found = mirrored_rates(scores, mirrored, counted / max(other_counted, 1), len(ours))
    parts = found.split([len(labels) for labels, _ in largest])
    rates = []
    for one, (labels, _), part in zip(ours, largest, parts, strict=True):
        of_cluster = torch.full((int(one.cluster.max()) + 1,), torch.nan, dtype=torch.float64)
        of_cluster[labels] = part
        shown = one.one_sided & (one.excess > 0)
        rates.append(torch.where(shown, of_cluster[one.cluster], torch.nan))
    return OnlyHere(ours, rates, rate, len(mirrored))


def latent_estimates(found: OnlyHere, place: Key) -> list[Estimate]:
    """The share of findings listed, beside the share that is expected to be listed falsely.

    A finding is a cluster of near-copies.

    Raises:
        InputError: no latent fires in enough documents, or the other adapter has so few one-sided
            latents that no false discovery rate can be told.
    """
    counted = sum(one.findings for one in found.found)
    if not counted:
        raise InputError(
            f"no latent fires in {FEWEST_DOCUMENTS} of the common documents; use more texts"
        )
    if found.refused:
        raise InputError(
            f"the other adapter has {found.mirrored} one-sided latents, near-copies counted once; "
            f"below {FEWEST_MIRRORED} the false discovery rate cannot be told, and none is listed"
        )
    rates = found.listed_rates()
    # The last listed has the largest rate: that of the whole list.
    false = rates.max().item() * len(rates) / counted if len(rates) else 0.0
    return [
        Estimate(
            "compare.only_here",
            len(rates) / counted,
            wilson_interval(len(rates), counted),
            counted,
            "share",
            (Null.exact(MIRRORED, false),),
            place,
        )
    ]
