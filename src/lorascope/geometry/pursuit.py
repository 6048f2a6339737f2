"""How well rows are expressed by few directions: non-negative pursuit, and principal components.

Orthogonal matching pursuit with non-negative coefficients (Bruckstein, Elad & Zibulevsky 2008):

1. the direction with the largest positive product with what is left of the row joins the row's
   support;
2. all coefficients of the support are fitted anew: the exact non-negative least squares solution,
   in which directions chosen earlier may drop to zero and come back;
3. what is left of the row is computed anew. No direction of the support has a positive product
   with it, so none is chosen twice.

Rows go through the steps together. Products with all directions are float32, the fits float64.
Where bfloat16 is quicker it picks the candidates for step 1, and float32 decides among them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Bool, Float, Int
from torch import Tensor

from lorascope.geometry.cosine import unit_rows
from lorascope.geometry.precision import bfloat16_pays, double

# Bytes that one chunk's supports and products may take.
_MEMORY = 128_000_000
# Directions that bfloat16 leaves for float32 to decide among, and the width from which on it pays.
_CANDIDATES = 8
_WIDE = 512
# A row is done where every direction is this close to a right angle with what is left of it, or
# where this little is left. Far above rounding, so that fits stay well-conditioned.
_LEAST_COSINE = 1e-3
_EXPLAINED = 1e-6
_ROUNDING = 1e-10
# Pivots that exchange all wrong members at once: quick, but only single ones surely end.
_TOGETHER = 3


class Pursuit(NamedTuple):
    """What was found for every row.

    Attributes:
        support: the directions chosen, in order; −1 where the search had ended.
        coefficients: of the directions as they were passed, non-negative; 0 where support is −1.
        given: coefficient of the direction that was given.
        residuals: ‖x − x̂‖₂ after 0, 1, … k choices; never growing.
    """

    support: Int[Tensor, "rows k"]
    coefficients: Float[Tensor, "rows k"]
    given: Float[Tensor, " rows"]
    residuals: Float[Tensor, "rows steps"]


@torch.no_grad()
def pursue(
    rows: Float[Tensor, "rows d"],
    directions: Float[Tensor, "n d"],
    k: int,
    given: Float[Tensor, " d"] | None = None,
) -> Pursuit:
    """Sums of at most k directions with non-negative coefficients, chosen greedily for each row.

    `given` is one more direction that every row has from the start, uncounted. A row's search
    ends early where no direction would make its residual smaller. Coefficients and residuals are
    float64. ValueError for widths that differ and for k outside 1..n.
    """
    n, d = directions.shape
    given = directions.new_zeros(d) if given is None else given
    if not rows.shape[1] == d == len(given):
        raise ValueError(f"rows, directions, given are {rows.shape[1]}, {d}, {len(given)} wide")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is outside 1..{n}, the number of directions")
    norms = double(torch.cat([given[None].to(directions), directions])).norm(dim=1)
    norms = torch.where(norms > 0, norms, 1.0)
    unit, first = unit_rows(directions), unit_rows(given[None].to(directions))
    chunk = max(1, _MEMORY // (8 * (k + 1) * (d + k) + 4 * n))
    worth_it = d >= _WIDE and n >= _CANDIDATES and bfloat16_pays(rows, unit)
    rounded = unit.bfloat16() if worth_it else None
    parts = [_pursue(part, unit, rounded, first, k) for part in rows.split(chunk)]
    support = torch.cat([support for support, _, _ in parts])
    fitted = torch.cat([fitted for _, fitted, _ in parts])
    residuals = torch.cat([residuals for _, _, residuals in parts])
    coefficients = fitted[:, 1:] / norms[1:][support.to(norms.device)]
    return Pursuit(support, coefficients, fitted[:, 0] / norms[0], residuals)


def _pursue(
    rows: Float[Tensor, "rows d"],
    directions: Float[Tensor, "n d"],
    rounded: BFloat16[Tensor, "n d"] | None,
    first: Float[Tensor, "1 d"],
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Support, coefficients of the given and the chosen unit directions, and residual norms."""
    fit = _PursuitFit(double(rows), k + 1)
    fit.add(double(first).expand(len(rows), -1))
    enough = _EXPLAINED * double(rows).norm(dim=1)
    residuals = [fit.left.norm(dim=1)]
    support = []
    for _ in range(k):
        best, index = _best(fit.left.to(directions), directions, rounded)
        useful = double(best) > torch.maximum(enough, _LEAST_COSINE * residuals[-1])
        fit.add(double(directions[index]) * useful[:, None])
        support.append(torch.where(useful.to(index.device), index, -1))
        residuals.append(fit.left.norm(dim=1))
    return torch.stack(support, dim=1), fit.coefficients, torch.stack(residuals, dim=1)


def _best(
    left: Float[Tensor, "rows d"],
    directions: Float[Tensor, "n d"],
    rounded: BFloat16[Tensor, "n d"] | None,
) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"]]:
    """The largest product of each row with a direction, and which that is."""
    if rounded is None:
        best, index = (left @ directions.T).max(dim=1)
        return best, index
    candidates = (left.bfloat16() @ rounded.T).topk(_CANDIDATES, dim=1, sorted=False).indices
    best, place = torch.linalg.vecdot(directions[candidates], left[:, None]).max(dim=1)
    return best, candidates.gather(1, place[:, None]).squeeze(1)


class _PursuitFit:
    """Non-negative least squares fits of rows by directions that are added one by one.

    Attributes:
        coefficients: of the directions so far.
        left: the rows less their fits.
    """

    def __init__(self, rows: Float[Tensor, "rows d"], most: int) -> None:
        n, d = rows.shape
        self._rows, self._size = rows, 0
        self._directions = rows.new_zeros(n, most, d)
        self._gram = rows.new_zeros(n, most, most)
        self._products = rows.new_zeros(n, most)
        self._positive = torch.zeros(n, most, dtype=torch.bool, device=rows.device)
        self.coefficients = rows.new_zeros(n, 0)
        self.left = rows

    def add(self, directions: Float[Tensor, "rows d"]) -> None:
        """One more unit direction a row, and the fit anew; a zero direction stays unused."""
        last, size = self._size, self._size + 1
        self._size = size
        self._directions[:, last] = directions
        chosen, gram = self._directions[:, :size], self._gram[:, :size, :size]
        column = (chosen @ directions[:, :, None]).squeeze(2)
        gram[:, last], gram[:, :, last] = column, column
        self._products[:, last] = torch.linalg.vecdot(self._rows, directions)
        positive = self._positive[:, :size]
        positive[:, last] = torch.linalg.vecdot(self.left, directions) > 0
        self.coefficients, positive[:] = nonnegative_fit(gram, self._products[:, :size], positive)
        self.left = self._rows - (self.coefficients[:, None] @ chosen).squeeze(1)


def nonnegative_fit(
    gram: Float[Tensor, "rows s s"],
    products: Float[Tensor, "rows s"],
    start: Bool[Tensor, "rows s"],
) -> tuple[Float[Tensor, "rows s"], Bool[Tensor, "rows s"]]:
    """The z ≥ 0 with least ½ zᵀGz − pᵀz for every row, and which of its entries are free.

    With G = DDᵀ and p = Dx this is the non-negative least squares fit of x by the rows of D.
    Principal pivoting: entries are free or zero; free ones found negative are set to zero, zero
    ones with a positive gradient freed, all at once at first, then only the first wrong one, which
    ends at the exact solution where G's free block is positive definite (Murty 1974; Portugal,
    Júdice & Vicente 1994). `start` guesses the free entries, those of linearly independent
    directions. float64.
    """
    free = start.clone()
    z = _solved(gram, products, free)
    nought = _ROUNDING * products.abs().amax(dim=1, keepdim=True)
    row = torch.arange(len(gram), device=gram.device)
    # In practice a handful of pivots; were rounding to keep them going, z ≥ 0 holds all the same.
    for pivot in range(_TOGETHER + 20 * gram.shape[1]):
        gradient = products[row] - (gram[row] @ z[row, :, None]).squeeze(2)
        wrong = torch.where(free[row], z[row] < -nought[row], gradient > nought[row])
        left = wrong.any(dim=1)
        if not left.any():
            break
        row, wrong = row[left], wrong[left]
        if pivot >= _TOGETHER:
            wrong &= wrong.cumsum(dim=1) == 1
        free[row] ^= wrong
        z[row] = _solved(gram[row], products[row], free[row])
    return z.clamp(min=0.0), free


def _solved(gram: Tensor, products: Tensor, free: Tensor) -> Float[Tensor, "rows s"]:
    """Least squares coefficients of the free entries, the others zero."""
    block = torch.where(free[:, :, None] & free[:, None, :], gram, 0.0)
    block.diagonal(dim1=1, dim2=2).add_(~free)
    factor = torch.linalg.cholesky_ex(block).L
    return torch.cholesky_solve((products * free)[:, :, None], factor).squeeze(2)


def principal_components(covariance: Float[Tensor, "d d"], k: int) -> Float[Tensor, "d k"]:
    """The k leading eigenvectors as columns, largest variance first, float64.

    ValueError for k outside 1..d.
    """
    d = covariance.shape[0]
    if not 1 <= k <= d:
        raise ValueError(f"k={k} is outside 1..{d}, the width of the covariance")
    return torch.linalg.eigh(double(covariance)).eigenvectors.flip(1)[:, :k]


def subspace_residuals(
    rows: Float[Tensor, "rows d"], mean: Float[Tensor, " d"], basis: Float[Tensor, "d k"]
) -> Float[Tensor, "rows steps"]:
    """‖x − x̂‖₂, x̂ = mean plus x − mean projected on the first 0, 1, … k columns; float64.

    The columns are orthonormal.
    """
    centred = double(rows) - double(mean)
    energies = (centred @ double(basis)).square()
    # Summed from the far end, so that small residuals are not differences of large numbers.
    outside = (centred - centred @ double(basis) @ double(basis).T).square().sum(1, keepdim=True)
    beyond = torch.cat([energies, outside], dim=1).flip(1).cumsum(dim=1).flip(1)
    return beyond.sqrt()
