"""Latents of one batch and the four products a training step makes with them.

With z the activations, D the directions [n, d] and g a row for each input [rows, d]:

    decode     Σ_j z_bj D_j        [rows, d]
    products   g_b · D_j           for each latent kept
    outer      Σ_b v_bj g_b        [n, d], for any values v on the latents kept
    by_latent  Σ_b v_bj            [n]

`DenseCodes` holds every latent and uses matrix products; `SparseCodes` holds the few that matter,
row by row, and touches nothing else: at 32 active latents of 4,096 its products cost a tenth of
one dense product. Both give the same numbers up to rounding.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional


class Workspace:
    """Large tensors that every step writes anew.

    Memory fresh from the system costs a CPU more than the matrix product that fills it.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, Tensor] = {}

    def room(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor on the device of `like`, the same one for the same arguments."""
        room = self._rooms.get(name)
        if room is None or room.shape != shape or room.dtype != dtype or room.device != like.device:
            room = torch.empty(shape, dtype=dtype, device=like.device)
            self._rooms[name] = room
        return room


class Codes(Protocol):
    """What a training step needs from the latents of a batch; `values` has the layout's shape."""

    @property
    def values(self) -> Tensor: ...

    @property
    def active(self) -> Tensor: ...

    def typed(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]: ...

    def decode(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "rows d"]: ...

    def products(self, g: Float[Tensor, "rows d"], directions: Float[Tensor, "n d"]) -> Tensor: ...

    def outer(self, values: Tensor, g: Float[Tensor, "rows d"]) -> Float[Tensor, "n d"]: ...

    def by_latent(self, values: Tensor) -> Float[Tensor, " n"]: ...

    def at_latents(self, per_latent: Float[Tensor, " n"]) -> Tensor: ...

    def block(self, first: int, end: int) -> tuple[Codes, Any]: ...

    def with_values(self, values: Tensor) -> Codes: ...


@dataclass(frozen=True)
class DenseCodes:
    """All latents of a batch, none negative; matrix products in the type of `values`."""

    values: Float[Tensor, "rows n"]
    workspace: Workspace

    @cached_property
    def active(self) -> Float[Tensor, "rows n"]:
        """1 where a latent is active, 0 elsewhere."""
        return torch.sign(self.values, out=self._room("active"))

    def typed(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Directions in the type of the products."""
        return directions.to(self.values.dtype)

    def decode(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "rows d"]:
        """Σ_j z_bj D_j, without a bias; float32."""
        return (self.values @ directions.to(self.values.dtype)).float()

    def products(
        self, g: Float[Tensor, "rows d"], directions: Float[Tensor, "n d"]
    ) -> Float[Tensor, "rows n"]:
        """g_b · D_j for every latent; the next call writes over it."""
        low = self.values.dtype
        return torch.mm(g.to(low), directions.to(low).T, out=self._room("products"))

    def outer(
        self, values: Float[Tensor, "rows n"], g: Float[Tensor, "rows d"]
    ) -> Float[Tensor, "n d"]:
        """Σ_b v_bj g_b, float32."""
        return (values.T @ g.to(values.dtype)).float()

    def by_latent(self, values: Tensor) -> Float[Tensor, " n"]:
        """Σ_b v_bj, float32; counts are exact."""
        # A sum in low precision is rounded once, at its end: 256 ones still fit.
        parts = [part.sum(0) for part in values.split(256)]
        return torch.stack(parts).sum(0, dtype=torch.float32)

    def at_latents(self, per_latent: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """A number for each latent in a shape that broadcasts over `values`."""
        return per_latent.to(self.values.dtype)

    def block(self, first: int, end: int) -> tuple[DenseCodes, tuple[slice, slice]]:
        """Latents from `first` to `end` counted from 0, and where they are in `values`."""
        where = (slice(None), slice(first, end))
        return DenseCodes(self.values[where], Workspace()), where

    def with_values(self, values: Float[Tensor, "rows n"]) -> DenseCodes:
        """The same latents with other activations."""
        return replace(self, values=values)

    def _room(self, name: str) -> Tensor:
        values = self.values
        return self.workspace.room(name, tuple(values.shape), values, values.dtype)


@dataclass(frozen=True)
class SparseCodes:
    """Kept latents row by row: row b holds entries offsets[b] to offsets[b + 1].

    An entry may hold zero: it then takes part in `products` and writes nothing.
    """

    offsets: Int[Tensor, " rows+1"]
    columns: Int[Tensor, " kept"]
    values: Float[Tensor, " kept"]
    n_latents: int

    @cached_property
    def active(self) -> Float[Tensor, " kept"]:
        """1 where an entry is above zero, 0 elsewhere."""
        return (self.values > 0).to(self.values.dtype)

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.offsets) - 1

    def typed(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Directions in the type of the products."""
        return directions

    def decode(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "rows d"]:
        """Σ_j z_bj D_j, without a bias."""
        return _weighted_sums(self.columns, self.offsets, self.values, directions)

    def products(
        self, g: Float[Tensor, "rows d"], directions: Float[Tensor, "n d"]
    ) -> Float[Tensor, " kept"]:
        """g_b · D_j for the kept latents."""
        pattern = _csr(self.offsets, self.columns, self.rows, self.n_latents)
        return torch.sparse.sampled_addmm(pattern, g, directions.T, beta=0.0).values()

    def outer(
        self, values: Float[Tensor, " kept"], g: Float[Tensor, "rows d"]
    ) -> Float[Tensor, "n d"]:
        """Σ_b v_bj g_b: the same weighted sums with the roles of rows and latents exchanged."""
        order, rows, offsets = self._by_column
        return _weighted_sums(rows, offsets, values.index_select(0, order), g)

    def by_latent(self, values: Tensor) -> Float[Tensor, " n"]:
        """Σ_b v_bj."""
        total = torch.zeros(self.n_latents, device=values.device)
        return total.index_add_(0, self.columns, values.float())

    def at_latents(self, per_latent: Float[Tensor, " n"]) -> Float[Tensor, " kept"]:
        """A number for each latent, at each kept entry."""
        return per_latent.index_select(0, self.columns)

    def block(self, first: int, end: int) -> tuple[SparseCodes, Bool[Tensor, " kept"]]:
        """Latents from `first` to `end` counted from 0, and where they are in `values`."""
        where = (self.columns >= first) & (self.columns < end)
        inside = self.keep(where)
        return replace(inside, columns=inside.columns - first, n_latents=end - first), where

    def with_values(self, values: Float[Tensor, " kept"]) -> SparseCodes:
        """The same latents with other activations."""
        return replace(self, values=values)

    def keep(self, kept: Bool[Tensor, " kept"]) -> SparseCodes:
        """Only some of the entries."""
        before = torch.zeros(len(kept) + 1, dtype=self.offsets.dtype, device=kept.device)
        before[1:] = kept.cumsum(0)
        return SparseCodes(
            before[self.offsets], self.columns[kept], self.values[kept], self.n_latents
        )

    @cached_property
    def _by_column(self) -> tuple[Tensor, Tensor, Tensor]:
        """Order of the entries by latent, the row of each, and where each latent's begin."""
        if not self.columns.is_cuda:
            return _transposed(self.offsets, self.columns, self.n_latents)
        # Half the bytes sort in half the time.
        keys = self.columns.short() if self.n_latents <= 2**15 else self.columns
        order = torch.sort(keys, stable=True).indices
        counts = self.offsets.diff().long()
        rows = torch.arange(self.rows, device=order.device, dtype=self.columns.dtype)
        rows = rows.repeat_interleave(counts, output_size=len(order))
        starts = torch.zeros(self.n_latents + 1, dtype=self.offsets.dtype, device=order.device)
        starts[1:] = torch.bincount(self.columns, minlength=self.n_latents).cumsum(0)
        return order, rows.index_select(0, order), starts


def _transposed(offsets: Tensor, columns: Tensor, n_latents: int) -> tuple[Tensor, Tensor, Tensor]:
    """`_by_column` by counting, without a sort: on a CPU a fifth of its time."""
    entries = np.arange(len(columns))
    shape = (len(offsets) - 1, n_latents)
    by_row = csr_array((entries, columns.numpy(), offsets.numpy()), shape=shape)
    found = by_row.tocsc()
    parts = (found.data, found.indices, found.indptr)
    order, rows, starts = (torch.from_numpy(part) for part in parts)
    return order, rows.to(columns.dtype), starts.to(offsets.dtype)


def _weighted_sums(index: Tensor, offsets: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    return functional.embedding_bag(
        index, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _csr(offsets: Tensor, columns: Tensor, rows: int, n_latents: int) -> Tensor:
    _warned_of_beta()
    return torch.sparse_csr_tensor(
        offsets,
        columns,
        torch.zeros(len(columns), device=columns.device),
        (rows, n_latents),
        check_invariants=False,
    )


@cache
def _warned_of_beta() -> None:
    """Let torch say once, unheard, that the CSR layout is in beta.

    Only the layout of three arrays is used; it has been stable since torch 1.13.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        nothing = torch.zeros(0)
        offsets = torch.zeros(2, dtype=torch.int32)
        torch.sparse_csr_tensor(offsets, nothing.int(), nothing, (1, 1), check_invariants=False)
