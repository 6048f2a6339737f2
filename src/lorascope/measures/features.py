"""What each latent of a delta dictionary is: where it fires, what it writes, what it resembles.

1. `chosen_rows` picks whole stretches of text in random order, `activity` encodes their rows once
   and keeps every activation, latent by latent.
2. `statistics` sums them up; `examples` picks the rows to show of one latent, from its strongest
   activations and from three bands of its others.
3. `single_chance` says how near single random directions come to a dictionary, `built_from` what
   a direction is made of, `token_effects` which tokens it promotes and suppresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.batch import TokenRows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.estimates import Chance
from lorascope.geometry.chance import directions_from_root
from lorascope.geometry.cosine import max_cosine, unit_rows
from lorascope.geometry.pursuit import pursue
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.interventions import unembed

BINS = 16
# Activations kept of one dictionary; one that fires more has its latents seen on fewer rows.
MOST_ACTIVATIONS = 2**24
# Random directions that give the chance level of a single one.
DRAWN = 2048
BUILT_FROM = 4
# Rows whose random pursuit gives the chance level of what a direction is built from.
_PURSUED = 128
# Entries of one dense block: latents of a piece of rows, or logits of some directions.
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
        mean: mean activation where active.
        maximum: largest activation.
        strength: mean norm of what it writes where active, z_j ‖d_j‖, stream units.
        written: density × strength, the mean norm it adds to a row.
        histogram: activations in `BINS` equal bins from 0 to the maximum.
        kinds: share of its activations in each kind of text.
    """

    density: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]
    maximum: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    written: Float[Tensor, " n"]
    histogram: Int[Tensor, "n bins"]
    kinds: Float[Tensor, "n kinds"]


def statistics(
    found: Activity, norms: Float[Tensor, " n"], kind: Int[Tensor, " rows"], kinds: int
) -> Statistics:
    """Sum up every latent's activations.

    Args:
        norms: of the directions.
        kind: which kind of text each row is from, below `kinds`.
    """
    counts, latent = found.counts, found.latent
    n = len(counts)
    sums = torch.zeros(n, dtype=torch.float64).index_add_(0, latent, found.value.double())
    maximum = torch.zeros(n).scatter_reduce_(0, latent, found.value, "amax")
    bins = (found.value / maximum[latent] * BINS).long().clamp(max=BINS - 1)
    histogram = torch.bincount(latent * BINS + bins, minlength=n * BINS).view(n, BINS)
    by_kind = torch.bincount(latent * kinds + kind[found.row.long()], minlength=n * kinds)
    density = counts.double() / found.rows
    mean = sums / counts
    strength = mean * norms.double().cpu()
    written = torch.where(counts > 0, density * strength, 0.0)
    shares = by_kind.view(n, kinds).double() / counts[:, None]
    return Statistics(density, mean, maximum.double(), strength, written, histogram, shares)


@dataclass(frozen=True)
class Example:
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
) -> list[Example]:
    """Rows on which a latent is active: its strongest, then some of every band, at random.

    The strongest are of different documents; of the bands none is taken twice.
    """
    rows, values = found.of(latent)
    order = values.argsort(descending=True, stable=True)
    chosen: dict[int, Example] = {}
    seen: set[int] = set()
    for place in order[:_LOOKED_THROUGH].tolist():
        row = int(rows[place])
        document = int(documents[row])
        if len(chosen) == strongest:
            break
        if document not in seen:
            seen.add(document)
            chosen[row] = Example(STRONGEST, row, float(values[place]))
    ascending = order.flip(0)
    for band, (low, high) in BANDS.items():
        within = ascending[int(low * len(order)) : int(high * len(order))]
        drawn = within[torch.randperm(len(within), generator=random)[: of_band + len(chosen)]]
        fresh = [place for place in drawn.tolist() if int(rows[place]) not in chosen][:of_band]
        picked = sorted(fresh, key=lambda place: -float(values[place]))
        chosen |= {int(rows[p]): Example(band, int(rows[p]), float(values[p])) for p in picked}
    return list(chosen.values())


@torch.no_grad()
def single_chance(
    directions: Float[Tensor, "m d"], root: Float[Tensor, "d d"], random: torch.Generator
) -> Chance:
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
    return Chance("covariance-matched", float(cosines.mean()), low, high)


def verdicts(cosines: Float[Tensor, " n"], chance: Chance) -> list[str]:
    """Each cosine against 95 % of single random directions: "above", "at" or "below" chance."""
    return [
        "above chance" if c > chance.high else "below chance" if c < chance.low else "at chance"
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
    chance: Chance


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
    chance = Chance("covariance-matched", float(reached.mean()), low, high)
    explained = 1 - found.residuals[:, -1].square()
    return Built(found.support, found.coefficients, explained, chance)


@dataclass(frozen=True, eq=False)
class TokenEffects:
    """Tokens a direction promotes and suppresses most, the first the most.

    Attributes:
        promoted, suppressed: token ids.
        promoted_by, suppressed_by: logits less the vocabulary's mean.
    """

    promoted: Int[Tensor, "n tokens"]
    promoted_by: Float[Tensor, "n tokens"]
    suppressed: Int[Tensor, "n tokens"]
    suppressed_by: Float[Tensor, "n tokens"]


@torch.no_grad()
def token_effects(
    model: AdaptedModel, directions: Float[Tensor, "n d"], most: int = 10
) -> TokenEffects:
    """Each direction through the base's final norm and output matrix, all blocks passed over.

    An approximation: what later blocks make of a direction is left out, and the norm sees the
    direction alone, so that sizes compare tokens of one direction and not directions. What the
    norm's and the output matrix' own biases give is taken off.
    """
    zero = torch.zeros(1, directions.shape[1])
    offset = _unembedded(model, zero)
    most = min(most, len(offset[0]))
    parts = []
    for part in _pieces(directions, model.vocab_size):
        scaled = unit_rows(part.float()) * part.shape[1] ** 0.5
        logits = _unembedded(model, scaled) - offset
        logits -= logits.mean(1, keepdim=True)
        up, down = logits.topk(most), logits.topk(most, largest=False)
        parts.append((up.indices, up.values, down.indices, down.values))
    columns: Sequence[tuple[Tensor, ...]] = list(zip(*parts, strict=True))
    return TokenEffects(*(torch.cat(column).cpu() for column in columns))


def _unembedded(model: AdaptedModel, streams: Float[Tensor, "n d"]) -> Float[Tensor, "n vocab"]:
    return unembed(model, BASE, streams.to(model.device, model.dtype)).float()


def _pieces(directions: Float[Tensor, "n d"], width: int) -> Iterator[Float[Tensor, "part d"]]:
    return iter(directions.split(max(1, _BLOCK // width)))
