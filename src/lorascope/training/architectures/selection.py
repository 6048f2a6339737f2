"""Which latents of a batch are kept: found fast, and exactly, among [rows, n] pre-activations."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.training.architectures.codes import SparseCodes

_GROUP = 16


def largest(
    pre: Float[Tensor, "rows n"], k: int
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest entries of each row and their columns, in no order.

    The columns fall into groups; every one of the k largest lies in one of the k groups with the
    largest maxima, so only those are searched.
    """
    rows, n = pre.shape
    groups = n // _GROUP
    if n % _GROUP or groups < 2 * k:
        values, columns = pre.topk(k, dim=1, sorted=False)
        return values, columns
    # Strided groups: the maximum then runs over whole vectors of neighbouring columns.
    top = pre.view(rows, _GROUP, groups).amax(1).topk(k, dim=1, sorted=False).indices
    steps = torch.arange(0, n, groups, device=pre.device)
    candidates = (top[:, None, :] + steps[:, None]).view(rows, -1)
    values, chosen = pre.gather(1, candidates).topk(k, dim=1, sorted=False)
    return values, candidates.gather(1, chosen)


def above(u: Float[Tensor, "rows n"], floor: Float[Tensor, " n"]) -> SparseCodes:
    """The entries above a floor of their column, nowhere negative; few of many. Overwrites `u`."""
    return positive(u.mul_(u > floor))


def positive(u: Float[Tensor, "rows n"]) -> SparseCodes:
    """The entries above zero; few of many. Overwrites `u`.

    Words of eight bytes are looked at first: most of them hold nothing but zeros.
    """
    rows, n = u.shape
    flat = u.relu_().view(-1)
    # A word holds 2^shift entries.
    inside, some, shift = flat, None, 4 - u.element_size().bit_length()
    if len(flat) % (1 << shift) == 0:
        words = flat.view(torch.int64)
        some = words.nonzero().squeeze(1)
        inside = words.index_select(0, some).view(u.dtype)
    where = (inside > 0).nonzero().squeeze(1)
    values = inside.index_select(0, where).float()
    if some is not None:
        of = some.index_select(0, where >> shift)
        where = of.bitwise_left_shift_(shift).add_(where & ((1 << shift) - 1))
    row = where // n
    columns = (where - row * n).int()
    offsets = torch.zeros(rows + 1, dtype=torch.int32, device=u.device)
    offsets[1:] = torch.bincount(row, minlength=rows).cumsum(0)
    return SparseCodes(offsets, columns, values, n)


def joined(parts: list[SparseCodes]) -> SparseCodes:
    """Codes of blocks of rows, one below the other."""
    if len(parts) == 1:
        return parts[0]
    counts = torch.cat([part.offsets.diff() for part in parts])
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int32, device=counts.device)
    offsets[1:] = counts.cumsum(0)
    columns = torch.cat([part.columns for part in parts])
    values = torch.cat([part.values for part in parts])
    return SparseCodes(offsets, columns, values, parts[0].n_latents)


def fixed(values: Float[Tensor, "rows k"], columns: Int[Tensor, "rows k"], n: int) -> SparseCodes:
    """Codes with the same number of entries in every row."""
    rows, k = values.shape
    offsets = torch.arange(0, rows * k + 1, k, dtype=torch.int32, device=values.device)
    return SparseCodes(offsets, columns.int().view(-1), values.float().view(-1), n)


def largest_of_all(codes: SparseCodes, count: int) -> SparseCodes:
    """The `count` largest entries over all rows together; all of them if there are fewer."""
    if len(codes.values) <= count:
        return codes
    kept = torch.zeros(len(codes.values), dtype=torch.bool, device=codes.values.device)
    kept[codes.values.topk(count, sorted=False).indices] = True
    return codes.keep(kept)
