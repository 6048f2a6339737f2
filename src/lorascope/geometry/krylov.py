"""The leading eigenvectors of a large symmetric matrix by block Lanczos.

1. From a random block, multiply by the matrix and make the result orthogonal to every block so
   far; the matrix seen from the basis grows with it.
2. Now and then take the eigenvectors of that small matrix. What each of them (a Ritz vector) lacks
   to be an eigenvector of the large one is known from the last block.
3. Stop when the span of the top k lies within a given angle of the true one. With residuals r,
   the angle is at most

       ‖r_1…k‖ / γ · √(1 + ‖r_1…w‖² / g²)                          (after Nakatsukasa 2020)

   for any window w > k, where g is the gap after the k-th Ritz value and γ that between the k-th
   and everything outside the window: a narrow gap at k costs only in second order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 16
# A Ritz pair whose residual is this small beside its value counts as settled.
_SETTLED = 1e-3


@dataclass(frozen=True)
class Leading:
    """Approximate eigenpairs, largest first.

    Attributes:
        values: all Ritz values of the last basis, of which the later ones are rough.
        vectors: of the first of them, as many as were asked for.
    """

    values: Float[Tensor, " m"]
    vectors: Float[Tensor, "d w"]


def leading_eigenvectors(
    matrix: Float[Tensor, "d d"], k: int, window: int, angle: float, least: float, most: int
) -> Leading | None:
    """Eigenvectors whose top k span the matrix's own top-k subspace within `angle` (radians).

    `window` vectors are returned, k of them settled. None where the k-th eigenvalue shows itself
    below `least`, or where `most` basis vectors are not enough. Always the same result for the
    same matrix.
    """
    basis = _Basis(matrix, most)
    wanted = window + 3 * _BLOCK
    before = (0, 0)
    while basis.size + _BLOCK <= most:
        basis.grow()
        if basis.size < min(wanted, most - _BLOCK + 1):
            continue
        values, coefficients = (x.flip(-1) for x in torch.linalg.eigh(basis.projected()))
        lacking = basis.lacking(coefficients)
        if values[k - 1] < least:
            return None
        settled = int((lacking < _SETTLED * values).cumprod(0).sum())
        known = slice(settled + 1)
        if settled > window and _angle_bound(values[known], lacking[known], k) < angle:
            return Leading(values, _vectors(basis, values, coefficients, k, window, angle))
        now = (basis.size, settled)
        wanted = _next_check(k, before, now)
        before = now
    return None


def _vectors(
    basis: _Basis, values: Tensor, coefficients: Tensor, k: int, window: int, angle: float
) -> Float[Tensor, "d w"]:
    """The first `window` Ritz vectors, from float64 where float32 would let others into their span.

    An eigensolver strays by about a last place of the largest value, wherever it is.
    """
    strays = torch.finfo(values.dtype).eps * values[0]
    if strays > 0.2 * angle * (values[k - 1] - values[window]):
        coefficients = torch.linalg.eigh(basis.projected().double()).eigenvectors.flip(1).to(values)
    return basis.rows().T @ coefficients[:, :window]


def _next_check(k: int, before: tuple[int, int], now: tuple[int, int]) -> int:
    """At which size of the basis to look again: a look costs as much as many steps.

    `before` and `now` are sizes with the number of top Ritz pairs settled there. Rather more than k
    are, by the time that the top k are known well enough.
    """
    (size, settled), rate = now, (now[1] - before[1]) / (now[0] - before[0])
    steps = (1.3 * k - settled) / rate if rate > 0 else math.inf
    return size + int(min(max(steps, 0.08 * size), 0.6 * size))


def _angle_bound(values: Float[Tensor, " m"], lacking: Float[Tensor, " m"], k: int) -> float:
    """The bound in radians, for the best window; infinite where no gap shows yet."""
    so_far = lacking.square().cumsum(0)
    gap = values[k - 1] - values[k]
    outside = values[k - 1] - (values[k + 1 :] + lacking[k + 1 :])
    bound = (so_far[k - 1] * (1 + so_far[k:-1] / gap.square())).sqrt() / outside
    valid = (outside > 0) & bound.isfinite()
    return bound[valid].min().item() if valid.any() else math.inf


class _Basis:
    """Orthonormal blocks Q_1, Q_2, … and the matrix seen from them."""

    def __init__(self, matrix: Float[Tensor, "d d"], most: int) -> None:
        d = len(matrix)
        start = torch.randn(d, _BLOCK, generator=torch.Generator().manual_seed(0)).to(matrix)
        self._matrix = matrix
        self._rows = matrix.new_empty(most, d)
        self._projected = matrix.new_zeros(most, most)
        self._next = torch.linalg.qr(start).Q
        self._last = matrix.new_zeros(_BLOCK, _BLOCK)
        self.size = 0

    def rows(self) -> Float[Tensor, "m d"]:
        """The basis, a vector a row."""
        return self._rows[: self.size]

    def projected(self) -> Float[Tensor, "m m"]:
        """The matrix in the basis."""
        upper = self._projected[: self.size, : self.size].triu()
        return upper + upper.triu(1).T

    def lacking(self, coefficients: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
        """Norm of the residual of each Ritz vector."""
        return torch.linalg.vector_norm(self._last @ coefficients[-_BLOCK:], dim=0)

    def grow(self) -> None:
        """Take the next block in, and find the one after it."""
        begin, self.size = self.size, self.size + _BLOCK
        self._rows[begin : self.size] = self._next.T
        image = self._matrix @ self._next
        # In exact arithmetic only the last two blocks overlap; the full pass removes rounding.
        recent = max(0, begin - _BLOCK)
        self._projected[recent : self.size, begin : self.size] = self._remove(image, recent)
        self._projected[: self.size, begin : self.size] += self._remove(image, 0)
        self._next, self._last = torch.linalg.qr(image)
        # A block that all but vanished is rounding alone and may lean on the basis.
        if self._last.diagonal().abs().min() < 1e-4 * self._projected.diagonal().max():
            for _ in range(2):
                self._remove(self._next, 0)
                self._next = torch.linalg.qr(self._next).Q

    def _remove(self, block: Float[Tensor, "d b"], first: int) -> Float[Tensor, "m b"]:
        """Take the basis vectors from `first` on out of `block`, in place; returns how much."""
        rows = self._rows[first : self.size]
        overlap = rows @ block
        block.addmm_(rows.T, overlap, alpha=-1)
        return overlap
