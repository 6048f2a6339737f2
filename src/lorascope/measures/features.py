"""Where each latent of a dictionary fires, and what it writes there.

1. `chosen_rows` picks whole stretches of text in random order, `activity` encodes their rows once
   and keeps every activation, latent by latent.
2. `statistics` sums them up; `examples` picks the rows to show of one latent, from its strongest
   activations and from three bands of its others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.batch import TokenRows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.chance import norm_matched
from lorascope.measures.firing import NULL_ROWS, firing

BINS = 16
# Activations kept of one dictionary; one that fires more has its latents seen on fewer rows.
MOST_ACTIVATIONS = 2**24
# Standard errors to either side of a value within its 95 % interval.
_WIDTH = 1.96
# Entries of one dense block of latents.
_BLOCK = 2**24
# Strongest activations looked through for some of different documents.
_LOOKED_THROUGH = 256
# Where the weaker examples come from: shares of a latent's activations, the weakest first.
BANDS = {"upper quarter": (0.75, 1.0), "middle half": (0.25, 0.75), "lower quarter": (0.0, 0.25)}
STRONGEST = "strongest"


def stretches(origin: TokenRows) -> Int[Tensor, " rows"]:
    """Which stretch of text each captured row belongs to, counted from 0.

    A stretch ends where the document changes or positions begin anew.
    """
    begins = torch.ones(len(origin), dtype=torch.bool)
    begins[1:] = origin.document.diff() != 0
    begins[1:] |= origin.position.diff() <= 0
    return begins.cumsum(0) - 1


def chosen_rows(
    stretch: Int[Tensor, " rows"], most: int, random: torch.Generator
) -> Int[Tensor, " chosen"]:
    """At most `most` rows: whole stretches in random order, each in its own order.

    Only a first stretch that is longer than `most` is cut.
    """
    _, counts = stretch.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    order = torch.randperm(len(counts), generator=random)
    fits = counts[order].cumsum(0) <= most
    fits[0] = True
    kept = order[fits]
    parts = [torch.arange(starts[k].item(), (starts[k] + counts[k]).item()) for k in kept]
    return torch.cat(parts)[:most]


@dataclass(frozen=True, eq=False)
class Activity:
    """Every activation of a dictionary's latents over rows, latent by latent.

    Attributes:
        rows: how many rows were encoded.
        starts: where each latent's activations begin, and behind the last where they end.
        row: the row of each, growing within a latent.
        value: how strong each is, above 0.
    """

    rows: int
    starts: Int[Tensor, " n_plus_1"]
    row: Int[Tensor, " active"]
    value: Float[Tensor, " active"]

    def of(self, latent: int) -> tuple[Int[Tensor, " active"], Float[Tensor, " active"]]:
        """Rows on which one latent is active, and how strongly."""
        here = slice(int(self.starts[latent]), int(self.starts[latent + 1]))
        return self.row[here], self.value[here]

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """On how many rows each latent is active."""
        return self.starts.diff()

    @property
    def latent(self) -> Int[Tensor, " active"]:
        """The latent of each activation."""
        return torch.repeat_interleave(torch.arange(len(self.starts) - 1), self.counts)


@torch.no_grad()
def activity(
    dictionary: Dictionary, rows: Float[Tensor, "rows d"], most: int = MOST_ACTIVATIONS
) -> Activity:
    """Encode rows once, a piece at a time, until `most` activations are kept."""
    row, latent, value = [], [], []
    seen = kept = 0
    for part in rows.split(max(1, _BLOCK // dictionary.n_latents)):
        z = dictionary.encode(part.to(dictionary.directions)).float()
        here, which = (z > 0).nonzero(as_tuple=True)
        if seen and kept + len(here) > most:
            break
        row.append((here + seen).int().cpu())
        latent.append(which.int().cpu())
        value.append(z[here, which].cpu())
        seen, kept = seen + len(part), kept + len(here)
    latents = torch.cat(latent)
    order = latents.argsort(stable=True)
    starts = torch.zeros(dictionary.n_latents + 1, dtype=torch.long)
    starts[1:] = torch.bincount(latents, minlength=dictionary.n_latents).cumsum(0)
    return Activity(seen, starts, torch.cat(row)[order], torch.cat(value)[order])


@dataclass(frozen=True, eq=False)
class Statistics:
    """One entry a latent; nan where a latent never fires.

    Attributes:
        density: share of rows on which it is active.
        density_low, density_high: its 95 % interval over documents.
        mean: mean activation where active.
        mean_low, mean_high: its 95 % interval over documents.
        maximum: largest activation.
        strength: mean norm of what it writes where active, z_j ‖d_j‖, stream units.
        written: density × strength, the mean norm it adds to a row.
        histogram: activations in `BINS` equal bins from 0 to the maximum.
        kinds: share of its activations in each kind of text.
    """

    density: Float[Tensor, " n"]
    density_low: Float[Tensor, " n"]
    density_high: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]
    mean_low: Float[Tensor, " n"]
    mean_high: Float[Tensor, " n"]
    maximum: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    written: Float[Tensor, " n"]
    histogram: Int[Tensor, "n bins"]
    kinds: Float[Tensor, "n kinds"]


def statistics(
    found: Activity,
    norms: Float[Tensor, " n"],
    documents: Int[Tensor, " rows"],
    kind: Int[Tensor, " rows"],
    kinds: int,
) -> Statistics:
    """Sum up every latent's activations.

    Intervals are those of ratios of sums over documents to first order, ±1.96 standard errors; nan
    with fewer than two documents.

    Args:
        norms: of the directions.
        documents: of each row.
        kind: which kind of text each row is from, below `kinds`.
    """
    counts, latent = found.counts, found.latent
    n = len(counts)
    maximum = torch.zeros(n).scatter_reduce_(0, latent, found.value, "amax")
    bins = (found.value / maximum[latent] * BINS).long().clamp(max=BINS - 1)
    histogram = torch.bincount(latent * BINS + bins, minlength=n * BINS).view(n, BINS)
    by_kind = torch.bincount(latent * kinds + kind[found.row.long()], minlength=n * kinds)
    (density, low, high), (mean, mean_low, mean_high) = _ratios(found, documents[: found.rows])
    strength = mean * norms.double().cpu()
    return Statistics(
        density,
        low.clamp(min=0.0),
        high.clamp(max=1.0),
        mean,
        mean_low,
        mean_high,
        maximum.double(),
        strength,
        torch.where(counts > 0, density * strength, 0.0),
        histogram,
        by_kind.view(n, kinds).double() / counts[:, None],
    )


def _ratios(
    found: Activity, documents: Int[Tensor, " rows"]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Density and mean activation of every latent, each with the bounds of its interval."""
    _, document, sizes = documents.unique(return_inverse=True, return_counts=True)
    several, n = len(sizes), len(found.counts)
    # One entry for each document a latent is active in.
    pairs = found.latent * several + document[found.row.long()]
    key, place, active = pairs.unique(return_inverse=True, return_counts=True)
    latent, lengths, active = key // several, sizes[key % several].double(), active.double()
    sums = torch.zeros(len(key), dtype=torch.float64).index_add_(0, place, found.value.double())

    def total(values: Tensor) -> Tensor:
        return torch.zeros(n, dtype=torch.float64).index_add_(0, latent, values)

    spread = several / (several - 1) if several > 1 else torch.nan
    results = []
    # Documents in which a latent is silent count for the density alone.
    whole = sizes.double().square().sum()
    for above, below, below_total, below_squares in (
        (active, lengths, torch.full((n,), float(found.rows), dtype=torch.float64), whole),
        (sums, active, total(active), total(active * active)),
    ):
        ratio = total(above) / below_total
        squares = total(above * above) - 2 * ratio * total(above * below)
        squares = (squares + ratio * ratio * below_squares).clamp(min=0.0)
        half = _WIDTH * (spread * squares).sqrt() / below_total
        results.append((ratio, ratio - half, ratio + half))
    return results


@torch.no_grad()
def fired_by_chance(
    dictionary: Dictionary, rows: Float[Tensor, "rows d"], random: torch.Generator
) -> Float[Tensor, " n"]:
    """Share of norm-matched random rows on which each latent is active, of at most 4,096."""
    drawn = norm_matched(rows[:NULL_ROWS], random)
    found = firing(dictionary, drawn)
    return found.per_latent.double() / len(drawn)


@dataclass(frozen=True)
class LatentExample:
    """A row to show of a latent.

    Attributes:
        band: `STRONGEST`, or one of `BANDS`.
        row: which row.
        value: the activation there.
    """

    band: str
    row: int
    value: float


def examples(
    found: Activity,
    latent: int,
    documents: Int[Tensor, " rows"],
    strongest: int,
    of_band: int,
    random: torch.Generator,
) -> list[LatentExample]:
    """Rows on which a latent is active: its strongest, then some of every band, at random.

    The strongest are of different documents; of the bands none is taken twice.
    """
    rows, values = found.of(latent)
    order = values.argsort(descending=True, stable=True)
    chosen: dict[int, LatentExample] = {}
    seen: set[int] = set()
    for place in order[:_LOOKED_THROUGH].tolist():
        row = int(rows[place])
        document = int(documents[row])
        if len(chosen) == strongest:
            break
        if document not in seen:
            seen.add(document)
            chosen[row] = LatentExample(STRONGEST, row, float(values[place]))
    ascending = order.flip(0)
    for band, (low, high) in BANDS.items():
        within = ascending[int(low * len(order)) : int(high * len(order))]
        drawn = within[torch.randperm(len(within), generator=random)[: of_band + len(chosen)]]
        fresh = [place for place in drawn.tolist() if int(rows[place]) not in chosen][:of_band]
        picked = sorted(fresh, key=lambda place: -float(values[place]))
        chosen |= {
            int(rows[p]): LatentExample(band, int(rows[p]), float(values[p])) for p in picked
        }
    return list(chosen.values())
