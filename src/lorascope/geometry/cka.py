"""Centred kernel alignment with linear kernels, from sums over rows: no N × N matrix is formed.

With K = XXᵀ, L = YYᵀ, a_i = ‖x_i‖², b_i = ‖y_i‖² and column sums s, t:

    plain HSIC ∝ ‖XᵀY − s tᵀ/N‖_F²                                     (Kornblith et al. 2019)
    unbiased   ∝ tr K̃L̃ + (1ᵀK̃1)(1ᵀL̃1)/((N−1)(N−2)) − 2/(N−2) 1ᵀK̃L̃1  (Song et al. 2012, eq. 5)

where K̃, L̃ have zero diagonals, and

    tr K̃L̃  = ‖XᵀY‖_F² − Σ a_i b_i
    1ᵀK̃1   = ‖s‖² − Σ a_i
    1ᵀK̃L̃1 = sᵀ(XᵀY)t − s·Xᵀb − t·Yᵀa + Σ a_i b_i.

CKA is HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)). Moving all rows of a set by one vector changes
neither form; centring the rows first only keeps digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.geometry.precision import double

_CHUNK = 8192


@dataclass(frozen=True)
class _Totals:
    """Of one set: rows counted, column sums, Σ‖x‖²."""

    n: int
    columns: Float[Tensor, " d"]
    norms: Float[Tensor, ""]

    def plus(self, other: _Totals, sign: int) -> _Totals:
        return _Totals(
            self.n + sign * other.n,
            self.columns + sign * other.columns,
            self.norms + sign * other.norms,
        )


@dataclass(frozen=True)
class _Cross:
    """Of two sets row by row: XᵀY, Xᵀb, Yᵀa, Σ a_i b_i."""

    product: Float[Tensor, "dx dy"]
    x_by_b: Float[Tensor, " dx"]
    y_by_a: Float[Tensor, " dy"]
    norms: Float[Tensor, ""]

    def plus(self, other: _Cross, sign: int) -> _Cross:
        return _Cross(
            self.product + sign * other.product,
            self.x_by_b + sign * other.x_by_b,
            self.y_by_a + sign * other.y_by_a,
            self.norms + sign * other.norms,
        )


def _totals(x: Tensor) -> _Totals:
    return _Totals(len(x), x.sum(0), x.square().sum())


def _cross(x: Tensor, y: Tensor) -> _Cross:
    a, b = x.square().sum(1), y.square().sum(1)
    return _Cross(x.T @ y, x.T @ b, y.T @ a, a @ b)


def _hsic_plain(x: _Totals, y: _Totals, cross: _Cross) -> float:
    return float((cross.product - torch.outer(x.columns, y.columns) / x.n).square().sum())


def _hsic_unbiased(x: _Totals, y: _Totals, cross: _Cross) -> float:
    n, s, t = x.n, x.columns, y.columns
    trace = cross.product.square().sum() - cross.norms
    pairs = (s.square().sum() - x.norms) * (t.square().sum() - y.norms)
    chained = s @ cross.product @ t - s @ cross.x_by_b - t @ cross.y_by_a + cross.norms
    return float(trace + pairs / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * chained)


@dataclass(frozen=True)
class _Sums:
    x: _Totals
    y: _Totals
    xx: _Cross
    yy: _Cross
    xy: _Cross

    def plus(self, other: _Sums, sign: int) -> _Sums:
        return _Sums(
            self.x.plus(other.x, sign),
            self.y.plus(other.y, sign),
            self.xx.plus(other.xx, sign),
            self.yy.plus(other.yy, sign),
            self.xy.plus(other.xy, sign),
        )

    def ratio(self, hsic: Callable[[_Totals, _Totals, _Cross], float]) -> float:
        own = hsic(self.x, self.x, self.xx), hsic(self.y, self.y, self.yy)
        if min(own) <= 0:
            return math.nan
        return hsic(self.x, self.y, self.xy) / math.sqrt(own[0] * own[1])


class CkaMoments:
    """Float64 sums over paired rows from which both forms of CKA follow.

    `+` joins the sums of two groups of rows, `-` takes a group out again. Both forms are nan where
    a set has no variance; ValueError with fewer than 4 rows.
    """

    def __init__(self) -> None:
        self._sums: _Sums | None = None

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._sums.x.n if self._sums else 0

    def update(self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> CkaMoments:
        """Add paired rows; returns itself. ValueError where the numbers of rows differ."""
        for xs, ys in _paired_chunks(x, y):
            added = _Sums(_totals(xs), _totals(ys), _cross(xs, xs), _cross(ys, ys), _cross(xs, ys))
            self._sums = self._sums.plus(added, 1) if self._sums else added
        return self

    def paired_anew(self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> CkaMoments:
        """The same two sets with their rows paired as given; own moments are not recomputed.

        `x` and `y` must hold the very rows already seen, in any order.
        """
        if self._sums is None or len(x) != self.n:
            raise ValueError(f"{self.n} rows were seen, {len(x)} are paired anew")
        crosses = (_cross(xs, ys) for xs, ys in _paired_chunks(x, y))
        xy = reduce(lambda one, more: one.plus(more, 1), crosses)
        return CkaMoments._of(replace(self._sums, xy=xy))

    def plain(self) -> float:
        """Linear CKA in [0, 1]; biased upwards, by about d/N for independent sets."""
        return self._seen().ratio(_hsic_plain)

    def debiased(self) -> float:
        """CKA with unbiased HSIC in all three places: about 0, of either sign, if independent."""
        return self._seen().ratio(_hsic_unbiased)

    def __add__(self, other: CkaMoments) -> CkaMoments:
        if self._sums is None or other._sums is None:
            return CkaMoments._of(self._sums or other._sums)
        return CkaMoments._of(self._sums.plus(other._sums, 1))

    def __sub__(self, other: CkaMoments) -> CkaMoments:
        if self._sums is None or other._sums is None:
            return CkaMoments._of(self._sums)
        return CkaMoments._of(self._sums.plus(other._sums, -1))

    @classmethod
    def _of(cls, sums: _Sums | None) -> CkaMoments:
        made = cls()
        made._sums = sums
        return made

    def _seen(self) -> _Sums:
        if self._sums is None or self.n < 4:
            raise ValueError(f"CKA needs at least 4 rows, {self.n} seen")
        return self._sums


def _paired_chunks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    if len(x) != len(y):
        raise ValueError(f"rows are not paired: {len(x)} and {len(y)}")
    for xs, ys in zip(x.split(_CHUNK), y.split(_CHUNK), strict=True):
        yield double(xs), double(ys)
