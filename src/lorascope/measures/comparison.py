"""Two adapters of one base model on the same tokens: how alike their deltas are.

1. Token by token: cosine, correlation of norms, difference.
2. Through dictionaries: how much of one delta the other's dictionary reconstructs.
3. As subspaces: angles between the principal subspaces, and the variance each holds of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry import chance, subspaces
from lorascope.measures.reconstruction import errors
from lorascope.measures.rows import by_document
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import OTHER_DELTA, OWN_DELTA
from lorascope.results.null_names import (
    BASE_COVARIANCE,
    ISOTROPIC,
    NORM_MATCHED,
    ROTATED,
    SHIFTED,
    ZERO,
)
from lorascope.stats.documents import one_less, ratio, smooth
from lorascope.stats.intervals import (
    Interval,
    jackknife_interval,
    within,
)

NULL_ROWS = 4096
NULL_REPEATS = 5
_GROUPS = 10
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class DeltaPair:
    """The same tokens under two adapters of one base.

    Attributes:
        base: h_base, float32.
        first, second: h_Δ of each adapter.
        documents: index of each row's document; rows stand in document order.
    """

    base: Rows
    first: Rows
    second: Rows
    documents: Int[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def turned(self) -> DeltaPair:
        """The second adapter first."""
        return DeltaPair(self.base, self.second, self.first, self.documents)

    @property
    def longest(self) -> int:
        """Rows of the longest document."""
        return int(self.documents.unique(return_counts=True)[1].max())


def agreement_estimates(pair: DeltaPair, place: Key, seed: int = 0) -> list[Estimate]:
    """Cosine, correlation of norms and difference of two deltas, token by token.

    Raises:
        InputError: one document holds more than half of the rows, so that none can be shifted.
    """
    if 2 * pair.longest > len(pair):
        raise InputError(
            f"{len(pair)} common rows, {pair.longest} of them in one document, leave no room to "
            "shift whole documents; measure on more documents"
        )
    shifted, random_rows = [], []
    for repeat in range(NULL_REPEATS):
        random = generator(seed, "compare", repeat)
        shifted.append(chance.shifted(pair.second, pair.longest, random))
        random_rows.append(chance.norm_matched(pair.second, random))
    nulls = {SHIFTED: shifted, NORM_MATCHED: random_rows}
    only_shifted = {SHIFTED: shifted}
    return [
        _agreement("compare.cosine", "cosine", _cosine, pair, nulls, place),
        _agreement("compare.norm_correlation", "correlation", _norms, pair, only_shifted, place),
        _agreement("compare.difference", "ratio", _difference, pair, nulls, place),
    ]


@dataclass(frozen=True, eq=False)
class _TokenSums:
    """A statistic of sums over tokens: the columns summed, and what becomes of the sums."""

    columns: Float[Tensor, "rows m"]
    statistic: Callable[[Float[Tensor, "repeats m"]], Float[Tensor, " repeats"]]

    @property
    def value(self) -> float:
        return self.statistic(self.columns.double().sum(0)[None]).item()

    def over(self, documents: Tensor) -> tuple[float, Interval]:
        """The number and its interval over documents."""
        sums = [by_document(column, documents) for column in self.columns.T]
        return smooth(self.statistic, torch.stack([s for s, _ in sums], dim=1), sums[0][1])


def _agreement(
    measure: str,
    unit: str,
    summed: Callable[[Rows, Rows], _TokenSums],
    pair: DeltaPair,
    nulls: dict[str, list[Tensor]],
    place: Key,
) -> Estimate:
    found = summed(pair.first, pair.second)
    chances = tuple(
        Null.drawn(name, [summed(pair.first, other).value for other in draws])
        for name, draws in nulls.items()
    )
    value, interval = found.over(pair.documents)
    return Estimate(measure, value, interval, len(pair), unit, chances, place)


def _ratio(sums: Float[Tensor, "repeats 2"]) -> Float[Tensor, " repeats"]:
    return sums[:, 0] / sums[:, 1]


def _cosine(first: Rows, second: Rows) -> _TokenSums:
    cosines = torch.nn.functional.cosine_similarity(first, second, dim=-1)
    return _TokenSums(torch.stack([cosines, torch.ones_like(cosines)], dim=1), _ratio)


def _difference(first: Rows, second: Rows) -> _TokenSums:
    apart = (first - second).norm(dim=-1)
    sizes = (first.norm(dim=-1) + second.norm(dim=-1)) / 2
    return _TokenSums(torch.stack([apart, sizes], dim=1), _ratio)


def _norms(first: Rows, second: Rows) -> _TokenSums:
    # Both to mean 0 and size 1 first: sums of squares then keep their digits.
    x, y = (_standardised(rows.norm(dim=-1).double()) for rows in (first, second))
    columns = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)
    return _TokenSums(columns, _correlation)


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp(min=1e-300)


def _correlation(sums: Float[Tensor, "repeats 6"]) -> Float[Tensor, " repeats"]:
    n, x, y, xx, yy, xy = sums.unbind(1)
    spread = (n * xx - x * x).clamp(min=0) * (n * yy - y * y).clamp(min=0)
    return (n * xy - x * y) / torch.where(spread > 0, spread, torch.nan).sqrt()


def energy_estimates(
    rows: Rows,
    documents: Int[Tensor, " rows"],
    own: Dictionary,
    other: Dictionary,
    place: Key,
    seed: int = 0,
) -> list[Estimate]:
    """How much of one adapter's delta its own and the other's delta dictionary reconstruct.

    `key.dictionary` of the results says which: `labels.OWN_DELTA` or `OTHER_DELTA`.
    """
    squares, counts = by_document(rows.double().square().sum(1), documents)
    left = {name: _left(d, rows, documents) for name, d in (("own", own), ("other", other))}
    nulls = {name: _turned_energies(d, rows, seed) for name, d in (("own", own), ("other", other))}
    estimates = []
    for name, where in (("own", OWN_DELTA), ("other", OTHER_DELTA)):
        here = replace(place, dictionary=where)
        value, interval = one_less(ratio(left[name], squares, counts))
        chances = (Null.drawn(ROTATED, nulls[name]), Null.exact(ZERO, 0.0))
        estimates.append(
            Estimate("compare.energy", value, interval, len(rows), "share", chances, here)
        )
    return [*estimates, _energy_share(left, squares, counts, nulls["other"], place)]


def _energy_share(
    left: dict[str, Tensor], squares: Tensor, counts: Tensor, null: list[float], place: Key
) -> Estimate:
    here = replace(place, dictionary=OTHER_DELTA)
    by_own = 1 - ratio(left["own"], squares, counts)[0]
    if by_own <= 0:
        raise InputError(
            f"{place.adapter} at {place.site}: its own dictionary reconstructs nothing of its "
            "delta; train it longer"
        )
    value, interval = ratio(squares - left["other"], squares - left["own"], counts)
    chances = (
        Null.drawn(ROTATED, [energy / by_own for energy in null]),
        Null.exact(ZERO, 0.0),
    )
    total = int(counts.sum())
    return Estimate("compare.energy_share", value, interval, total, "ratio", chances, here)


def _left(dictionary: Dictionary, rows: Rows, documents: Tensor) -> Float[Tensor, " documents"]:
    residuals = errors(dictionary, rows, documents).residuals
    return by_document(residuals.double().square(), documents)[0]


def _turned_energies(dictionary: Dictionary, rows: Rows, seed: int) -> list[float]:
    some = spread(rows, NULL_ROWS)
    none = torch.zeros(len(some), dtype=torch.long)
    drawn = []
    for repeat in range(NULL_REPEATS):
        turn = chance.random_rotation(rows.shape[1], generator(seed, "compare rotated", repeat))
        found = errors(dictionary.rotated(turn), some, none)
        drawn.append(1 - found.frobenius**2)
    return drawn


def subspace_estimates(
    pair: DeltaPair, k: Sequence[int], places: tuple[Key, Key], *, seed: int = 0, repeats: int = 20
) -> list[Estimate]:
    """Angles between the deltas' top-k subspaces, and the variance of each within the other's.

    Args:
        places: of the first adapter's numbers and of the second's; the angles stand at the first,
            with the upper reference beside them: there the adapter is compared with itself.

    Raises:
        InputError: k exceeds what a delta spans.
    """
    first, second = _Spectra.of(pair.first, pair), _Spectra.of(pair.second, pair)
    halves = _halves(pair)
    estimates = []
    root = chance.covariance_root(pair.base.T.cov())
    for size in k:
        nulls = dict(_null_subspaces(root, size, repeats, seed))
        here = [replace(place, k=size) for place in places]
        estimates.append(_angle(first, second, size, nulls, here[0]))
        reference = replace(here[0], compared=here[0].adapter)
        estimates.append(_angle(*halves, size, nulls, reference))
        estimates.append(_variance(first, second, size, nulls, here[0]))
        estimates.append(_variance(second, first, size, nulls, here[1]))
    return estimates


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Second moments of centred rows, whole and by group of documents."""

    rows: Rows
    group: Int[Tensor, " rows"]
    parts: list[Float[Tensor, "d d"]]

    @classmethod
    def of(cls, rows: Rows, pair: DeltaPair, kept: Tensor | None = None) -> _Spectra:
        _, index = pair.documents.unique(return_inverse=True)
        group = index % _GROUPS
        if kept is not None:
            # Every other document is kept: its groups would else be every other one.
            rows, group = rows[kept], (index[kept] // 2) % _GROUPS
        centred = rows - rows.mean(0)
        parts = [subspaces.gram_matrix(centred[group == g]) for g in range(_GROUPS)]
        return cls(centred, group, parts)

    def top(self, k: int, without: int | None = None) -> Float[Tensor, "d k"]:
        moment = self.moment(without)
        rows = self.rows if without is None else self.rows[self.group != without]
        try:
            return subspaces.principal_subspace(rows, k, moment)
        except ValueError:
            raise InputError(
                f"k={k} is more than the {len(rows)} rows of a delta span; choose a smaller k"
            ) from None

    def moment(self, without: int | None = None) -> Float[Tensor, "d d"]:
        return torch.stack([p for g, p in enumerate(self.parts) if g != without]).sum(0)


def _halves(pair: DeltaPair) -> tuple[_Spectra, _Spectra]:
    _, index = pair.documents.unique(return_inverse=True)
    even, odd = (_Spectra.of(pair.first, pair, index % 2 == side) for side in (0, 1))
    return even, odd


def _null_subspaces(
    root: Float[Tensor, "d d"], k: int, repeats: int, seed: int
) -> Iterator[tuple[str, list[Float[Tensor, "d k"]]]]:
    def generators(name: str) -> list[torch.Generator]:
        return [generator(seed, "compare subspace", name, k, i) for i in range(repeats)]

    name = BASE_COVARIANCE
    drawn = [chance.directions_from_root(k, root, random) for random in generators(name)]
    yield name, [torch.linalg.qr(rows.T).Q for rows in drawn]
    name = ISOTROPIC
    yield name, [chance.random_subspace(len(root), k, random) for random in generators(name)]


Subspaces = dict[str, list[Float[Tensor, "d k"]]]


def _angle(first: _Spectra, second: _Spectra, k: int, nulls: Subspaces, place: Key) -> Estimate:
    def mean(q1: Tensor, q2: Tensor) -> float:
        return subspaces.principal_angles(q1, q2).mean().item()

    reference = second.top(k)
    value = mean(first.top(k), reference)
    without = [mean(first.top(k, g), second.top(k, g)) for g in range(_GROUPS)]
    chances = tuple(
        Null.drawn(name, [mean(q, reference) for q in drawn], 0.0, 90.0)
        for name, drawn in nulls.items()
    )
    interval = within(jackknife_interval(value, without), 0.0, 90.0)
    return Estimate("compare.subspace_angle", value, interval, k, "degrees", chances, place)


def _variance(rows: _Spectra, other: _Spectra, k: int, nulls: Subspaces, place: Key) -> Estimate:
    def share(moment: Tensor, q: Tensor) -> float:
        double = moment.double()
        return ((q.double().T @ double) * q.double().T).sum().item() / double.trace().item()

    whole = rows.moment()
    value = share(whole, other.top(k))
    without = [share(rows.moment(g), other.top(k, g)) for g in range(_GROUPS)]
    chances = tuple(
        Null.drawn(name, [share(whole, q) for q in drawn], 0.0, 1.0)
        for name, drawn in nulls.items()
    )
    interval = within(jackknife_interval(value, without), 0.0, 1.0)
    n = len(rows.rows)
    return Estimate("compare.subspace_variance", value, interval, n, "share", chances, place)


def spread(rows: Float[Tensor, "rows ..."], most: int) -> Float[Tensor, "some ..."]:
    """At most `most` rows, evenly spaced, so that every part of the texts has its share."""
    return rows[:: max(1, -(-len(rows) // most))]
