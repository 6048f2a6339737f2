"""XᵀX and XᵀY of many rows, chunk by chunk.

A Gram matrix costs a little more than half a product: only blocks on and above the diagonal are
computed (`add_upper_`), the others filled in at the end (`mirror_`).

For sums that are read as a whole, such as a norm of XᵀY, rounding rows to bfloat16 does no harm as
long as none of them and no column carries much of it: the errors of single entries, 0.2 % each,
are independent and average out. So the columns that stand out, as outlier dimensions of a residual
stream do, are kept in float32 apart (`outlier_columns`), and where the remaining rows of a chunk
are not even, that chunk is multiplied in float32 altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.geometry.precision import bfloat16_pays

_BLOCK = 256
_OUTLIERS = 64
# Below this many rows or columns errors do not average out, and float32 is quick.
_FEWEST = 1024
# How much likelier than in even rows and columns two entries picked by energy share both.
_MOST_UNEVEN = 8.0


def gram(rows: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """XᵀX in the dtype of the rows."""
    d = rows.shape[1]
    return mirror_(add_upper_(rows.new_zeros(d, d), rows))


def add_upper_(total: Float[Tensor, "d d"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Add XᵀX to `total` in place, leaving out the blocks below the diagonal; returns it."""
    for start in range(0, rows.shape[1], _BLOCK):
        end = start + _BLOCK
        add_product_(total[start:end, start:], rows[:, start:end], rows[:, start:])
    return total


def mirror_(upper: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Fill the blocks below the diagonal of what `add_upper_` summed, in place; returns it."""
    for start in range(0, len(upper), _BLOCK):
        end = start + _BLOCK
        upper[end:, start:end] = upper[start:end, end:].T
    return upper


def add_product_(
    total: Float[Tensor, "dx dy"], x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]
) -> Float[Tensor, "dx dy"]:
    """Add XᵀY to `total` in place; returns it."""
    return total.addmm_(x.T, y) if x.dtype == total.dtype else total.add_(x.T @ y)


class Chunk(NamedTuple):
    """Some rows, ready to be multiplied.

    Attributes:
        rows: as they are.
        quiet: with nought in the outlier columns, in the products' dtype.
        outliers: the outlier columns.
    """

    rows: Float[Tensor, "n d"]
    quiet: Float[Tensor, "n d"]
    outliers: Float[Tensor, "n p"]


def outlier_columns(*sets: Float[Tensor, "n d"]) -> Int[Tensor, " p"]:
    """The columns with most of a set's energy, in any of the sets; none where float32 is used."""
    width = min(x.shape[1] for x in sets)
    if width < _FEWEST or not bfloat16_pays(*sets):
        return torch.empty(0, dtype=torch.long, device=sets[0].device)
    energies = [torch.linalg.vector_norm(x, dim=0).square()[:width] for x in sets]
    shares = torch.stack([energy / energy.sum() for energy in energies]).nan_to_num(0.0)
    return shares.amax(0).topk(_OUTLIERS).indices.sort().values


def chunks(sets: Sequence[Float[Tensor, "n d"]], columns: Int[Tensor, " p"]) -> list[Chunk]:
    """Paired rows of several sets, all with products in one dtype."""
    outliers = [x[:, columns] for x in sets]
    many = min(*(len(x) for x in sets), *(x.shape[1] for x in sets)) >= _FEWEST
    low = many and bfloat16_pays(*sets) and all(map(_is_even, sets, outliers))
    made = []
    for rows, loud in zip(sets, outliers, strict=True):
        quiet = rows.to(torch.bfloat16 if low else torch.float32, copy=bool(len(columns)))
        quiet[:, columns] = 0
        made.append(Chunk(rows, quiet, loud))
    return made


def _is_even(rows: Tensor, outliers: Tensor) -> bool:
    """Whether the energy outside the outlier columns is spread over rows and columns."""
    of_rows = torch.linalg.vecdot(rows, rows) - torch.linalg.vecdot(outliers, outliers)
    of_columns = torch.linalg.vector_norm(rows, dim=0).square()
    return bool(_unevenness(of_rows) * _unevenness(of_columns) < _MOST_UNEVEN)


def _unevenness(energy: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    return len(energy) * energy.square().sum() / energy.sum().square()
