"""Centred kernel alignment with linear kernels, from sums over rows: no N × N matrix is formed.

With K = XXᵀ, L = YYᵀ, a_i = ‖x_i‖², b_i = ‖y_i‖² and column sums s, t:

    plain HSIC ∝ ‖XᵀY − s tᵀ/N‖_F²                                     (Kornblith et al. 2019)
    unbiased   ∝ tr K̃L̃ + (1ᵀK̃1)(1ᵀL̃1)/((N−1)(N−2)) − 2/(N−2) 1ᵀK̃L̃1  (Song et al. 2012, eq. 5)

where K̃, L̃ have zero diagonals, and

    tr K̃L̃  = ‖XᵀY‖_F² − Σ a_i b_i
    1ᵀK̃1   = ‖s‖² − Σ a_i
    1ᵀK̃L̃1 = sᵀ(XᵀY)t − s·Xᵀb − t·Yᵀa + Σ a_i b_i.

CKA is HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)). Moving all rows of a set by one vector changes
neither form; rows are taken about a centre near their mean, where products keep the digits that
count. Narrow sets are multiplied in float64; wide ones in float32, which leaves CKA within 1e-6 of
float64, or in bfloat16 where that is quicker (`products.paired`), within 1e-4.

Since adapted = base + delta, XᵀX, XᵀΔ and ΔᵀΔ give the products of (base, adapted) as well, so that
one pass serves a site's base rows and any number of deltas (`SiteMoments`):

    Xᵀ(X + Δ)       = XᵀX + XᵀΔ
    (X + Δ)ᵀ(X + Δ) = XᵀX + XᵀΔ + ΔᵀX + ΔᵀΔ
    ‖x + δ‖²        = ‖x‖² + 2 x·δ + ‖δ‖².
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.geometry.precision import single
from lorascope.geometry.products import RowChunk, mirrored, outlier_columns, paired

_CHUNK = 2048
# Up to this width float64 products are quick too, and few entries average out less.
_NARROW = 512
_BLOCK = 256
# ‖x‖², ‖δ‖² and ‖x + δ‖² from (‖x‖², x·δ, ‖δ‖²).
_BASE, _DELTA, _ADAPTED = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 2.0, 1.0)

_Group = TypeVar("_Group", "_Base", "_Delta")


class Hsic(NamedTuple):
    """Of two sets of rows, up to the factors that CKA divides out."""

    plain: float
    unbiased: float


@dataclass(frozen=True)
class Cka:
    """HSIC of two sets with each other and of each with itself."""

    xy: Hsic
    xx: Hsic
    yy: Hsic

    @property
    def plain(self) -> float:
        """Linear CKA in [0, 1], biased upwards; nan where a set has no variance.

        N rows of independent sets come to about √(PR_x · PR_y) / N, PR the participation ratio of
        each covariance's eigenvalues, (Σλ)² / Σλ²; d / (N + d) for isotropic rows of width d.
        """
        return _ratio(self.xy.plain, self.xx.plain, self.yy.plain)

    @property
    def debiased(self) -> float:
        """CKA with unbiased HSIC in all three places: about 0, of either sign, if independent.

        nan where a set has no variance.
        """
        return _ratio(self.xy.unbiased, self.xx.unbiased, self.yy.unbiased)


class PairsOfDelta(NamedTuple):
    """CKA of the base with one delta, and with base + delta."""

    base_delta: Cka
    base_adapted: Cka


def _ratio(both: float, first: float, second: float) -> float:
    return both / math.sqrt(first * second) if min(first, second) > 0 else math.nan


def cka(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> Cka:
    """CKA of two sets of paired rows. ValueError as `hsic`."""
    return Cka(hsic(x, y), hsic(x, x), hsic(y, y))


def hsic(
    x: Float[Tensor, "n dx"],
    y: Float[Tensor, "n dy"],
    product: Float[Tensor, "dx dy"] | None = None,
) -> Hsic:
    """Both forms for paired rows; `product` is their `centred_product` where it is known.

    ValueError where the rows do not pair up or there are fewer than 4.
    """
    product = centred_product(x, y) if product is None else product
    centres = _centres(x, y)
    s, t, x_by_b, y_by_a = (at.new_zeros(len(at), dtype=torch.float64) for at in centres * 2)
    norms = s.new_zeros(3)
    for xs, ys in _centred((x, y), centres):
        a, b = torch.linalg.vecdot(xs, xs), torch.linalg.vecdot(ys, ys)
        for total, more in ((s, xs.sum(0)), (t, ys.sum(0)), (x_by_b, b @ xs), (y_by_a, a @ ys)):
            total += more
        norms += torch.stack([a.double().sum(), b.double().sum(), a.double() @ b.double()])
    return _hsic(len(x), (s, t), (x_by_b, y_by_a), norms, product)


def centred_product(x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> Float[Tensor, "dx dy"]:
    """XᵀY of the rows about their means. ValueError where the rows do not pair up."""
    centres = _centres(x, y)
    product = centres[0].new_zeros(x.shape[1], y.shape[1])
    outliers = None
    for xs, ys in _centred((x, y), centres):
        if outliers is None:
            outliers = outlier_columns((xs, ys))
        rows, others = paired((xs, ys), outliers)
        rows.add_product_(others, product)
    return product


def _centre(rows: Tensor) -> Float[Tensor, " d"]:
    """The mean row, in the precision of the products: float32, or float64 where they are small.

    Summed in float64, so that equal rows are exactly nought about it.
    """
    mean = single(rows).sum(0, dtype=torch.float64) / len(rows)
    return mean if len(mean) <= _NARROW else mean.float()


def _centres(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    one, other = _centre(x), _centre(y)
    precision = torch.promote_types(one.dtype, other.dtype)
    return one.to(precision), other.to(precision)


def _centred(sets: Sequence[Tensor], centres: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Chunks of paired rows about the centre of each set, in its precision."""
    if len({len(x) for x in sets}) > 1:
        raise ValueError(f"rows are not paired: {' and '.join(str(len(x)) for x in sets)}")
    for start in range(0, len(sets[0]), _CHUNK):
        rows = slice(start, start + _CHUNK)
        yield [x[rows].to(at) - at for x, at in zip(sets, centres, strict=True)]


def _hsic(
    n: int,
    columns: tuple[Float[Tensor, " dx"], Float[Tensor, " dy"]],
    by_norms: tuple[Float[Tensor, " dx"], Float[Tensor, " dy"]],
    norms: Float[Tensor, " three"],
    product: Float[Tensor, "dx dy"],
) -> Hsic:
    """Both forms from (s, t), (Xᵀb, Yᵀa), (Σa, Σb, Σab), all float64, and XᵀY."""
    if n < 4:
        raise ValueError(f"CKA needs at least 4 rows, {n} seen")
    (s, t), (x_by_b, y_by_a), (a, b, ab) = columns, by_norms, norms
    squares, form = s.new_zeros(()), s.new_zeros(())
    for some, rows in zip(product.split(_BLOCK), s.split(_BLOCK), strict=True):
        wide = some.double()
        squares += wide.square().sum()
        form += rows @ (wide @ t)
    ss, tt = s.square().sum(), t.square().sum()
    plain = squares - 2 * form / n + ss * tt / n**2
    pairs = (ss - a) * (tt - b) / ((n - 1) * (n - 2))
    chained = form - s @ x_by_b - t @ y_by_a + ab
    return Hsic(float(plain), float(squares - ab + pairs - 2.0 / (n - 2) * chained))


class _Base(NamedTuple):
    """Σx and the upper blocks of XᵀX."""

    columns: Float[Tensor, " d"]
    gram: Float[Tensor, "d d"]

    def add_(self, x: RowChunk) -> None:
        self.columns.add_(x.values.sum(0))
        x.add_gram_(self.gram)


class _Delta(NamedTuple):
    """With R = (‖x‖², x·δ, ‖δ‖²) row by row: Σδ, XᵀR, ΔᵀR, ΣR, RᵀR, upper ΔᵀΔ, XᵀΔ."""

    columns: Float[Tensor, " d"]
    x_by: Float[Tensor, "d three"]
    delta_by: Float[Tensor, "d three"]
    sums: Float[Tensor, " three"]
    squares: Float[Tensor, "three three"]
    gram: Float[Tensor, "d d"]
    cross: Float[Tensor, "d d"]

    def add_(self, base: RowChunk, rows: RowChunk) -> None:
        x, delta = base.values, rows.values
        pairs = (x, x), (x, delta), (delta, delta)
        r = torch.stack([torch.linalg.vecdot(p, q) for p, q in pairs], dim=1)
        self.columns.add_(delta.sum(0))
        self.x_by.add_(x.T @ r)
        self.delta_by.add_(delta.T @ r)
        self.sums.add_(r.double().sum(0))
        self.squares.addmm_(r.double().T, r.double())
        rows.add_gram_(self.gram)
        base.add_product_(rows, self.cross)


class _Side(NamedTuple):
    """One side of a pair: Σx, XᵀR, and what R times it gives ‖x‖²."""

    columns: Float[Tensor, " d"]
    by: Float[Tensor, "d three"]
    norms: Float[Tensor, " three"]


class SiteMoments:
    """Sums over paired rows of the base and of deltas, from which CKA of each pair follows.

    Without rows yet. `base` and `deltas` are rows whose means lie near those of what will come: all
    of it, or a first part. Memory: a d × d matrix for the base and two for each delta.
    """

    def __init__(
        self, base: Float[Tensor, "n d"], deltas: Mapping[str, Float[Tensor, "n d"]]
    ) -> None:
        sets = base, *deltas.values()
        self._centres = [_centre(rows) for rows in sets]
        self._outliers = outlier_columns(next(_centred(sets, self._centres)))
        self._clear(list(deltas))

    def fresh(self) -> SiteMoments:
        """Without rows, about the same centres."""
        made = copy(self)
        made._clear(list(self._deltas))
        return made

    def _clear(self, names: Sequence[str]) -> None:
        centre = self._centres[0]
        d = len(centre)

        def wide(*shape: int) -> Tensor:
            return centre.new_zeros(*shape, dtype=torch.float64)

        def matrix() -> Tensor:
            return centre.new_zeros(d, d)

        def delta() -> _Delta:
            vectors = wide(d), wide(d, 3), wide(d, 3), wide(3), wide(3, 3)
            return _Delta(*vectors, matrix(), matrix())

        self.n = 0
        self._base = _Base(wide(d), matrix())
        self._deltas = {name: delta() for name in names}

    def update(
        self, base: Float[Tensor, "n d"], deltas: Mapping[str, Float[Tensor, "n d"]]
    ) -> SiteMoments:
        """Add rows of the same tokens; returns itself. ValueError where they do not pair up."""
        if deltas.keys() != self._deltas.keys():
            raise ValueError(f"deltas {[*deltas]} given where {[*self._deltas]} are summed")
        sets = base, *(deltas[name] for name in self._deltas)
        for chunk in _centred(sets, self._centres):
            x, *others = paired(chunk, self._outliers)
            self.n += len(x.values)
            self._base.add_(x)
            for sums, rows in zip(self._deltas.values(), others, strict=True):
                sums.add_(x, rows)
        return self

    def cka(self, name: str, without: SiteMoments | None = None) -> PairsOfDelta:
        """CKA of both pairs of this delta; `without` are sums of some of the rows, to be left out.

        ValueError with fewer than 4 rows.
        """
        n, shared, of = self.n, self._base, self._deltas[name]
        if without is not None:
            n -= without.n
            shared, of = _less(shared, without._base), _less(of, without._deltas[name])
        weights = [of.sums.new_tensor(norms) for norms in (_BASE, _DELTA, _ADAPTED)]
        base = _Side(shared.columns, of.x_by, weights[0])
        delta = _Side(of.columns, of.delta_by, weights[1])
        adapted = _Side(base.columns + delta.columns, base.by + delta.by, weights[2])

        def both_forms(x: _Side, y: _Side, product: Tensor) -> Hsic:
            a, b = x.norms, y.norms
            norms = torch.stack([of.sums @ a, of.sums @ b, a @ of.squares @ b])
            return _hsic(n, (x.columns, y.columns), (x.by @ b, y.by @ a), norms, product)

        xx, dd, xd = mirrored(shared.gram), mirrored(of.gram), of.cross
        own = both_forms(base, base, xx)
        base_delta = Cka(both_forms(base, delta, xd), own, both_forms(delta, delta, dd))
        xa = xx.add_(xd)
        aa = dd.add_(xa).add_(xd.T)
        base_adapted = Cka(both_forms(base, adapted, xa), own, both_forms(adapted, adapted, aa))
        return PairsOfDelta(base_delta, base_adapted)

    def products(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """XᵀX, XᵀΔ and ΔᵀΔ about the centres, [d, d] each."""
        of = self._deltas[name]
        return mirrored(self._base.gram), of.cross, mirrored(of.gram)

    def group_sums(
        self,
        base: Float[Tensor, "n d"],
        deltas: Mapping[str, Float[Tensor, "n d"]],
        group: Int[Tensor, " n"],
    ) -> dict[str, Float[Tensor, "two groups d"]]:
        """Sums of base rows and of each delta's about the centres, by group in order."""
        _, index = group.unique(return_inverse=True)
        sets = base, *(deltas[name] for name in self._deltas)
        shape = int(index.max()) + 1, base.shape[1]
        sums = [base.new_zeros(shape, dtype=torch.float64) for _ in sets]
        for rows, chunk in zip(index.split(_CHUNK), _centred(sets, self._centres), strict=True):
            for total, part in zip(sums, chunk, strict=True):
                total.index_add_(0, rows, part.double())
        return {name: torch.stack([sums[0], of]) for name, of in zip(deltas, sums[1:], strict=True)}


def _less(sums: _Group, some: _Group) -> _Group:
    return type(sums)(*(p - q for p, q in zip(sums, some, strict=True)))
