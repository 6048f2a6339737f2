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


def nonzero(z: Float[Tensor, "rows n"]) -> SparseCodes:
    """The entries of a mostly zero matrix.

    Looks at words of 8 bytes first, which hold two or four entries and are mostly zero too.
    """
    rows, n = z.shape
    pack = 8 // z.element_size()
    if (rows * n) % pack:
        flat = z.reshape(-1).nonzero().squeeze(1)
        values = z.reshape(-1).index_select(0, flat)
    else:
        words = z.view(-1).view(torch.int64)
        some = words.nonzero().squeeze(1)
        entries = words.index_select(0, some).view(z.dtype)
        inside = entries.nonzero().squeeze(1)
        flat = some.index_select(0, inside // pack) * pack + inside % pack
        values = entries.index_select(0, inside)
    offsets = torch.zeros(rows + 1, dtype=torch.int32, device=z.device)
    row = flat // n
    offsets[1:] = torch.bincount(row, minlength=rows).cumsum(0)
    return SparseCodes(offsets, (flat - row * n).int(), values.float(), n)


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
