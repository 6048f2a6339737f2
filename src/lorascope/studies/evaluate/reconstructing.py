"""What one dictionary makes of the rows it reads: FVU, L0, dead latents, how often each fires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.rows import by_document, chunks
from lorascope.measures.yardsticks import MEAN, PCA, components, principal
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NO_ADAPTER, RANDOM_DECODER
from lorascope.stats.documents import ratio, smooth
from lorascope.stats.intervals import or_point, wilson_interval
from lorascope.studies.evaluate.rows import StreamRows
from lorascope.studies.evaluate.units import Units

# Powers of ten between which firing rates are counted, from 1e-5 to 1 in half steps.
EDGES = tuple(-5.0 + step / 2 for step in range(11))


@dataclass(frozen=True, eq=False)
class ReadRows:
    """One dictionary on held-out rows.

    Attributes:
        errors: Σ ‖x − x̂‖² by document.
        active: Σ active latents by document.
        per_latent: rows on which each latent is active.
    """

    errors: Float[Tensor, " documents"]
    active: Float[Tensor, " documents"]
    per_latent: Int[Tensor, " n"]

    @property
    def dead(self) -> int:
        """Latents active on no row."""
        return int((self.per_latent == 0).sum())


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """A dictionary and what stands beside it, on the same rows.

    Attributes:
        own: the dictionary.
        others: by name of the null.
        components: Σ squared rest by document, of as many principal components as latents active.
        total: Σ ‖x − x̄‖² by document.
        rows: by document.
    """

    own: ReadRows
    others: dict[str, ReadRows]
    components: Float[Tensor, " documents"]
    total: Float[Tensor, " documents"]
    rows: Float[Tensor, " documents"]

    def estimates(self, place: Key) -> list[Estimate]:
        """FVU, L0 and share of dead latents."""
        n, latents = int(self.rows.sum()), len(self.own.per_latent)
        found = []
        if float(self.total.sum()) > 0:
            value, around = ratio(self.own.errors, self.total, self.rows)
            pca = self._null(PCA, self.components, rival=True)
            nulls = [Null.exact(MEAN, 1.0, rival=True), pca]
            nulls += [
                self._null(name, one.errors, rival=name == RANDOM_DECODER)
                for name, one in self.others.items()
            ]
            found.append(Estimate("evaluate.fvu", value, around, n, "ratio", tuple(nulls), place))
        l0, around = ratio(self.own.active, self.rows)
        beside = []
        for name, one in self.others.items():
            level, theirs = ratio(one.active, self.rows)
            _, gap = ratio(self.own.active - one.active, self.rows)
            beside.append(Null(name, level, *or_point(level, theirs), difference=gap))
        found.append(Estimate("evaluate.l0", l0, around, n, "latents/token", tuple(beside), place))
        dead = []
        for name, one in self.others.items():
            count = len(one.per_latent)
            dead.append(Null(name, one.dead / count, *wilson_interval(one.dead, count)))
        share, bounds = self.own.dead / latents, wilson_interval(self.own.dead, latents)
        found.append(
            Estimate("evaluate.dead_share", share, bounds, latents, "share", tuple(dead), place)
        )
        return found

    def units(self, place: Key, ids: Sequence[str]) -> list[Units]:
        """FVU and L0, document by document."""
        parts = (self.rows, self.rows)
        found = [Units.ratio("evaluate.l0", place, ids, self.own.active, *parts)]
        if float(self.total.sum()) > 0:
            sums = (self.own.errors, self.total, self.rows)
            found.append(Units.ratio("evaluate.fvu", place, ids, *sums))
        return found

    def less(self, without: Reconstructed, place: Key) -> list[Estimate]:
        """FVU and L0 with the adapter less those without, on the same tokens."""
        nulls = (Null.exact(NO_ADAPTER, 0.0, rival=True),)
        n, found = int(self.rows.sum()), []
        if float(self.total.sum()) > 0 and float(without.total.sum()) > 0:
            columns = [self.own.errors, self.total, without.own.errors, without.total]
            value, around = smooth(_gap, torch.stack(columns, 1), self.rows)
            at = replace(place, about="evaluate.fvu")
            found.append(Estimate("evaluate.change", value, around, n, "ratio", nulls, at))
        value, around = ratio(self.own.active - without.own.active, self.rows)
        at = replace(place, about="evaluate.l0")
        return [*found, Estimate("evaluate.change", value, around, n, "latents/token", nulls, at)]

    def facts(self) -> dict[str, Any]:
        """How many latents fire how often: counts between `EDGES`, and those never active."""
        rate = self.own.per_latent.double() / float(self.rows.sum())
        counts, dead = histogram(rate)
        return {"edges": list(EDGES), "counts": counts, "dead": dead, "latents": len(rate)}

    def _null(self, name: str, errors: Float[Tensor, " documents"], rival: bool) -> Null:
        level, around = ratio(errors, self.total, self.rows)
        _, gap = ratio(self.own.errors - errors, self.total, self.rows)
        return Null(name, level, *or_point(level, around), rival=rival, difference=gap)


def _gap(sums: Float[Tensor, "repeats 4"]) -> Float[Tensor, " repeats"]:
    return sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]


def histogram(rate: Float[Tensor, " n"]) -> tuple[list[int], int]:
    """(latents by firing rate between powers of ten `EDGES`, latents that never fire).

    A rate on an edge belongs to the bin above it; rates below the first edge to the first bin, a
    rate of 1 to the last.
    """
    alive = rate[rate > 0].double().log10()
    inner = torch.tensor(EDGES[1:-1], dtype=torch.float64)
    places = torch.bucketize(alive, inner, right=True)
    counts = torch.bincount(places, minlength=len(EDGES) - 1)
    return counts.tolist(), int((rate == 0).sum())


@torch.no_grad()
def tell(
    dictionary: Dictionary,
    training: Float[Tensor, "rows d"],
    measured: StreamRows,
    others: Mapping[str, Dictionary],
) -> Reconstructed:
    """Read held-out rows with a dictionary and with what stands beside it.

    Args:
        training: rows that give the mean and the principal components.
        others: by name of the null.
    """
    own = _read(dictionary, measured)
    rows, documents = measured.rows, measured.documents
    mean = training.double().mean(0).float()
    whole, counts = by_document((rows - rows.double().mean(0).float()).square().sum(1), documents)
    centred = (training - mean).double()
    covariance = centred.T @ centred / len(training)
    count = components(float(own.active.sum() / counts.sum()), rows.shape[1])
    axes = principal(covariance.float(), count)
    left = []
    for chunk in chunks(rows):
        x = chunk - mean
        left.append((x - (x @ axes.T) @ axes).double().square().sum(1))
    rest, _ = by_document(torch.cat(left), documents)
    beside = {name: _read(one, measured) for name, one in others.items()}
    return Reconstructed(own, beside, rest, whole, counts)


def _read(dictionary: Dictionary, measured: StreamRows) -> ReadRows:
    errors, active = [], []
    per_latent = torch.zeros(dictionary.n_latents, dtype=torch.long)
    for chunk in chunks(measured.rows):
        x = chunk.to(dictionary.directions)
        codes = dictionary.encode(x)
        fires = codes > 0
        errors.append((dictionary.decode(codes) - x).double().square().sum(1).cpu())
        active.append(fires.sum(1).double().cpu())
        per_latent += fires.sum(0).cpu()
    error, _ = by_document(torch.cat(errors), measured.documents)
    counted, _ = by_document(torch.cat(active), measured.documents)
    return ReadRows(error, counted, per_latent)
