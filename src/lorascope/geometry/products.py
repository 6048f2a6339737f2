"""XᵀX and XᵀY of many rows, chunk by chunk.

A Gram matrix costs a little more than half a product: only blocks on and above the diagonal are
computed (`add_upper_`), the others filled in at the end (`mirrored`).

For sums that are read as a whole, such as a norm of XᵀY, wide rows may be rounded to bfloat16
where that is quicker (`paired`): the errors of single entries, 0.2 % each, are independent and
average out as long as no column carries much of the energy. So the columns that stand out, as
outlier dimensions of a residual stream do, stay in float32 (`outlier_columns`), and a chunk whose
other columns are not even is multiplied in float32 altogether. Other sums over the same rows are
to be taken from `RowChunk.values`, so that all of them tell of the very same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Int
from torch import Tensor

from lorascope.geometry.precision import bfloat16_pays

_BLOCK = 256
_OUTLIERS = 64
# Below this many rows or columns errors do not average out, and float32 is quick.
_FEWEST = 1024
# The other columns are even where their energy is spread as over this part of them, or more.
_LEAST_SPREAD = 1 / 8


def gram(rows: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """XᵀX in the dtype of the rows."""
    d = rows.shape[1]
    return mirrored(add_upper_(rows.new_zeros(d, d), rows))


def add_upper_(total: Float[Tensor, "d d"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Add XᵀX to `total` in place, leaving out the blocks below the diagonal; returns it."""
    for start in range(0, rows.shape[1], _BLOCK):
        end = start + _BLOCK
        _add_product_(total[start:end, start:], rows[:, start:end], rows[:, start:])
    return total


def mirrored(upper: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """What `add_upper_` summed, with the blocks below the diagonal filled in."""
    whole = torch.empty_like(upper)
    for start in range(0, len(upper), _BLOCK):
        end = start + _BLOCK
        whole[start:end, start:] = upper[start:end, start:]
        whole[end:, start:end] = upper[start:end, end:].T
    return whole


def _add_product_(total: Tensor, x: Tensor, y: Tensor) -> None:
    if x.dtype == total.dtype:
        total.addmm_(x.T, y)
    else:
        total.add_(x.T @ y)


class RowChunk(NamedTuple):
    """A chunk of rows, ready to be multiplied.

    Attributes:
        values: the rows as they are multiplied.
        rounded: nought in the outlier columns; None where `values` are multiplied themselves.
        outliers: which columns those are.
    """

    values: Float[Tensor, "n d"]
    rounded: BFloat16[Tensor, "n d"] | None
    outliers: Int[Tensor, " p"]

    def add_gram_(self, total: Float[Tensor, "d d"]) -> None:
        """Add XᵀX to `total` in place, as `add_upper_`."""
        if self.rounded is None:
            add_upper_(total, self.values)
            return
        add_upper_(total, self.rounded)
        loud = self.values[:, self.outliers].T @ self.values
        self._add_outliers_(total, loud, loud.T)

    def add_product_(self, other: RowChunk, total: Float[Tensor, "d d"]) -> None:
        """Add XᵀY to `total` in place."""
        if self.rounded is None or other.rounded is None:
            total.addmm_(self.values.T, other.values)
            return
        _add_product_(total, self.rounded, other.rounded)
        loud = self.values[:, self.outliers].T @ other.values
        self._add_outliers_(total, loud, self.values.T @ other.values[:, self.outliers])

    def _add_outliers_(
        self, total: Tensor, rows: Float[Tensor, "p d"], columns: Float[Tensor, "d p"]
    ) -> None:
        total.index_add_(0, self.outliers, rows)
        total.index_add_(1, self.outliers, columns.index_fill(0, self.outliers, 0))


def outlier_columns(sets: Sequence[Float[Tensor, "n d"]]) -> Int[Tensor, " p"]:
    """The columns with most of a set's energy, in any of the sets; rows are taken as centred.

    None where the sets are not equally wide.
    """
    if not _equally_wide(sets):
        return torch.empty(0, dtype=torch.long, device=sets[0].device)
    energies = torch.stack([torch.linalg.vector_norm(x, dim=0).square() for x in sets])
    shares = (energies / energies.sum(1, keepdim=True)).nan_to_num(0.0)
    return shares.amax(0).topk(min(_OUTLIERS, shares.shape[1])).indices


def paired(sets: Sequence[Float[Tensor, "n d"]], outliers: Int[Tensor, " p"]) -> list[RowChunk]:
    """RowChunk of several sets, to be multiplied with each other.

    The sets are overwritten. One dtype for all products: the sets' own, or bfloat16.
    """
    large = all(x.dtype == torch.float32 and min(x.shape) >= _FEWEST for x in sets)
    quick = large and _equally_wide(sets) and bfloat16_pays(*sets)
    if not (quick and all(_is_even(x, outliers) for x in sets)):
        return [RowChunk(x, None, outliers) for x in sets]
    made = []
    for x in sets:
        exact, rounded = x[:, outliers], x.bfloat16()
        x.copy_(rounded)[:, outliers] = exact
        rounded[:, outliers] = 0
        made.append(RowChunk(x, rounded, outliers))
    return made


def _equally_wide(sets: Sequence[Tensor]) -> bool:
    return len({x.shape[1] for x in sets}) == 1


def _is_even(rows: Tensor, outliers: Tensor) -> bool:
    """Whether energy is spread over the columns that are no outliers."""
    energy = torch.linalg.vector_norm(rows, dim=0).square().index_fill(0, outliers, 0)
    spread = energy.sum().square() / (len(energy) * energy.square().sum())
    return bool(spread >= _LEAST_SPREAD)
