"""Cosines between sets of directions.

The largest cosine of each row is found in two steps where the hardware multiplies bfloat16 faster
than float32:

1. all cosines from rows rounded to bfloat16. With û, v̂ the rounded u, v, rounding moves a cosine
   by at most ‖u − û‖ + ‖v − v̂‖ (Cauchy–Schwarz), and both norms are known;
2. in float32 those columns whose cosine may, within that margin, be the row's largest. A row with
   very many of them (copies, near-copies, zeros) is compared with all columns in float32.
"""

from __future__ import annotations

import torch
from jaxtyping import BFloat16, Float, Int
from torch import Tensor

from lorascope.geometry.precision import at_least_single, bfloat16_pays

_CHUNK = 512
# Columns screened together by their largest cosine, a divisor of every padded number of columns.
_STRIPE = 64
# More candidates than this in a row, and the plain product is the cheaper way.
_CROWD = 64
_PAIRS = 128
# Below this many multiplications the screening's own work shows.
_WORTH_SCREENING = 2**28

Best = tuple[Float[Tensor, " n"], Int[Tensor, " n"]]


def unit_rows(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows scaled to unit norm, float32 (float64 stays); zero rows stay zero."""
    x = at_least_single(x)
    return x / _divisors(x)


def max_cosine(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], chunk: int = _CHUNK) -> Best:
    """For each row of `a` the largest cosine with a row of `b`, and that row's index.

    Signed: an opposite direction counts −1. A zero row has cosine 0 with everything. Exact in
    float32; never more than chunk × m cosines in memory. ValueError where a set is empty of rows
    to compare with or the widths differ.
    """
    if a.shape[-1] != b.shape[-1] or not len(b):
        raise ValueError(f"cannot compare rows of shapes {tuple(a.shape)} and {tuple(b.shape)}")
    worth_it = a.numel() * len(b) >= _WORTH_SCREENING
    if worth_it and bfloat16_pays(a, b):
        return _screened(a, b, chunk)
    return _plain(a, b, chunk)


def _divisors(x: Tensor) -> Float[Tensor, "n 1"]:
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norms > 0, norms, 1.0)


def _plain(a: Tensor, b: Tensor, chunk: int) -> Best:
    targets = unit_rows(b.float()).T
    values = torch.empty(len(a), dtype=torch.float32, device=a.device)
    indices = torch.empty(len(a), dtype=torch.long, device=a.device)
    for start in range(0, len(a), chunk):
        rows = slice(start, start + chunk)
        best = (unit_rows(a[rows].float()) @ targets).max(dim=1)
        values[rows], indices[rows] = best.values.clamp(-1.0, 1.0), best.indices
    return values, indices


def _screened(a: Tensor, b: Tensor, chunk: int) -> Best:
    """As `_plain`, by both steps."""
    targets, moved = _padded_targets(b)
    divisors = _divisors(b.float()).squeeze(1)
    values = torch.empty(len(a), dtype=torch.float32)
    indices = torch.empty(len(a), dtype=torch.long)
    unsettled = torch.zeros(len(a), dtype=torch.bool)
    for start in range(0, len(a), chunk):
        rows = slice(start, start + chunk)
        unit = unit_rows(a[rows].float())
        rounded, error = _rounded(unit)
        # Sums of d products in float32 stray by less than d/2 last places of 1.
        margin = 1.01 * (error + moved) + a.shape[1] * torch.finfo(torch.float32).eps
        row, column = _candidates(rounded @ targets.T, margin)
        column %= len(b)
        count = torch.bincount(row, minlength=len(unit))
        unsettled[rows] = (count == 0) | (count > _CROWD)
        kept = (count <= _CROWD)[row]
        row, column = row[kept], column[kept]
        cosines = _dots(unit, row, b, column) / divisors[column]
        values[rows], indices[rows] = _best(cosines, row, column, len(unit))
    if unsettled.any():
        values[unsettled], indices[unsettled] = _plain(a[unsettled], b, chunk)
    return values.clamp(-1.0, 1.0), indices


def _rounded(unit: Tensor) -> tuple[BFloat16[Tensor, "n d"], Float[Tensor, " n"]]:
    """The rows in bfloat16 and how far each was moved."""
    rounded = unit.bfloat16()
    return rounded, torch.linalg.vector_norm(unit - rounded, dim=1)


def _padded_targets(b: Tensor) -> tuple[BFloat16[Tensor, "padded d"], float]:
    """Unit rows of `b` in bfloat16, and the farthest that one was moved.

    Rows from the beginning are repeated until their number is a multiple of the stripe.
    """
    size = -len(b) % _STRIPE + len(b)
    targets = torch.empty(size, b.shape[1], dtype=torch.bfloat16)
    moved = 0.0
    for start in range(0, len(b), _PAIRS):
        rows = slice(start, min(start + _PAIRS, len(b)))
        targets[rows], error = _rounded(unit_rows(b[rows].float()))
        moved = max(moved, error.max().item())
    targets[len(b) :] = targets[torch.arange(len(b), size) % len(b)]
    return targets, moved


def _candidates(
    cosines: BFloat16[Tensor, "n padded"], margin: Float[Tensor, " n"]
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Rows and columns of the cosines that may be their row's largest.

    True cosines lie within `margin` of what was rounded to the bfloat16 given here. Rounding is
    monotone, so that a threshold rounded like the cosines still loses none of them.
    """
    n = len(cosines)
    stripes = cosines.view(n, _STRIPE, -1)
    largest_of_stripe = stripes.amax(1)
    largest = largest_of_stripe.amax(1).float()
    last_place = torch.finfo(torch.bfloat16).eps
    lowest = (largest - 0.5 * last_place * largest.abs() - 2 * margin).bfloat16()
    row, stripe = (largest_of_stripe >= lowest[:, None]).nonzero(as_tuple=True)
    pair, place = (stripes[row, :, stripe] >= lowest[row, None]).nonzero(as_tuple=True)
    return row[pair], place * stripes.shape[2] + stripe[pair]


def _dots(
    x: Float[Tensor, "n d"], i: Int[Tensor, " pairs"], y: Tensor, j: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """x_i · y_j of each pair, a cache's worth at a time."""
    dots = [
        torch.linalg.vecdot(x[some], y[others].float())
        for some, others in zip(i.split(_PAIRS), j.split(_PAIRS), strict=True)
    ]
    return torch.cat(dots)


def _best(cosines: Tensor, row: Tensor, column: Tensor, n: int) -> Best:
    """The largest cosine of each row and the first column that has it."""
    values = cosines.new_full((n,), -torch.inf).scatter_reduce(0, row, cosines, "amax")
    winners = cosines == values[row]
    none = torch.full((n,), torch.iinfo(torch.long).max)
    return values, none.scatter_reduce(0, row[winners], column[winners], "amin")
