"""Sparse and dense latents give the same products, and what is kept is what is largest."""

import pytest
import torch

from lorascope.randomness import generator
from lorascope.training.architectures.codes import DenseCodes, SparseCodes, Workspace
from lorascope.training.architectures.selection import (
    above,
    fixed,
    joined,
    largest,
    largest_of_all,
    positive,
)

ROWS, N, D = 20, 64, 7


def nonzero(z):
    return positive(z.clone())


def mostly_zero(share=0.1, rows=ROWS, dtype=torch.float32):
    random = generator(0)
    z = torch.rand(rows, N, generator=random) * (torch.rand(rows, N, generator=random) < share)
    z[3] = 0  # a row with nothing
    z[:, 5] = 0  # a latent that never fires
    return z.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [ROWS, 7])
def test_nonzero_entries_are_found_where_they_are(dtype, rows):
    z = mostly_zero(rows=rows, dtype=dtype)
    codes = nonzero(z)
    dense = torch.zeros(rows, N)
    for row in range(rows):
        entries = slice(codes.offsets[row], codes.offsets[row + 1])
        dense[row, codes.columns[entries].long()] = codes.values[entries]
    assert torch.equal(dense, z.float())
    assert len(codes.values) == int((z > 0).sum())
    assert codes.values.dtype == torch.float32


def test_what_lies_above_its_columns_floor():
    u = torch.randn(ROWS, N, generator=generator(5))
    floor = torch.rand(N, generator=generator(6))
    expected = torch.where(u > floor, u, torch.zeros(()))
    assert 0.1 < (u > floor).float().mean() < 0.9
    codes = above(u.clone(), floor)
    torch.testing.assert_close(codes.decode(torch.eye(N)), expected)
    parts = [above(part, floor) for part in u.split(7)]
    for name in ("offsets", "columns", "values"):
        assert torch.equal(getattr(joined(parts), name), getattr(codes, name)), name


def test_nonzero_entries_of_an_odd_shape():
    z = mostly_zero()[:7, :3].contiguous()
    assert len(nonzero(z).values) == int((z > 0).sum())
    assert nonzero(torch.zeros(3, 8)).offsets.tolist() == [0, 0, 0, 0]


def test_both_layouts_give_the_same_products():
    z = mostly_zero()
    sparse, dense = nonzero(z), DenseCodes(z, Workspace())
    assert isinstance(sparse, SparseCodes)
    random = generator(1)
    directions, g = torch.randn(N, D, generator=random), torch.randn(ROWS, D, generator=random)
    other = torch.randn(len(sparse.values), generator=random)
    spread = torch.zeros(ROWS, N)
    spread[z > 0] = other
    close = torch.testing.assert_close
    close(sparse.decode(directions), z @ directions)
    close(dense.decode(directions), z @ directions)
    close(sparse.products(g, directions), (g @ directions.T)[z > 0])
    close(dense.products(g, directions), g @ directions.T)
    close(sparse.outer(other, g), spread.T @ g)
    close(dense.outer(spread, g), spread.T @ g)
    close(sparse.by_latent(other), spread.sum(0))
    close(dense.by_latent(spread), spread.sum(0))
    assert torch.equal(sparse.active, torch.ones(len(other)))
    assert torch.equal(dense.active, (z > 0).float())


@pytest.mark.parametrize("ordered", [True, False])
def test_entries_by_latent_stand_in_the_order_of_a_stable_sort(ordered):
    codes = nonzero(mostly_zero())
    # A latent that no row holds, a row that holds none, and columns in no order within a row.
    assert 0 in torch.bincount(codes.columns, minlength=N)
    assert 0 in codes.offsets.diff()
    if not ordered:
        columns = codes.columns.flip(0)
        offsets = (len(columns) - codes.offsets).flip(0)
        codes = SparseCodes(offsets, columns, codes.values, N)
    order, rows, starts = codes._by_column
    expected = torch.sort(codes.columns, stable=True).indices
    row_of = torch.arange(codes.rows).repeat_interleave(codes.offsets.diff().long())
    assert torch.equal(order, expected)
    assert torch.equal(rows, row_of[expected].int())
    counts = torch.bincount(codes.columns, minlength=N)
    assert starts.tolist() == [0, *counts.cumsum(0).tolist()]
    assert starts.dtype == rows.dtype == torch.int32


@pytest.mark.parametrize(("first", "end"), [(0, 64), (10, 30), (63, 64)])
def test_blocks_are_slices(first, end):
    z = mostly_zero(0.3)
    directions = torch.randn(N, D, generator=generator(2))
    expected = z[:, first:end] @ directions[first:end]
    for codes in (nonzero(z), DenseCodes(z, Workspace())):
        block, where = codes.block(first, end)
        torch.testing.assert_close(block.decode(directions[first:end]), expected)
        assert torch.equal(codes.values[where], block.values)


def test_counts_are_exact_in_low_precision():
    """Sums of more than 256 ones have no place in bfloat16."""
    ones = torch.ones(1000, N, dtype=torch.bfloat16)
    assert DenseCodes(ones, Workspace()).by_latent(ones).tolist() == [1000.0] * N


@pytest.mark.parametrize(
    ("n", "k"), [(4096, 32), (4096, 1), (512, 16), (512, 17), (100, 40), (33, 4)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_of_each_row(n, k, dtype):
    pre = torch.randn(50, n, generator=generator(n)).to(dtype)
    # the largest all in one group of columns: neighbours, and every 256th
    pre[0, :k] += 100
    pre[1, torch.arange(k) * (n // k)] += 100
    values, columns = largest(pre, k)
    expected = pre.topk(k, dim=1).values
    assert torch.equal(values.sort(dim=1, descending=True).values, expected)
    assert torch.equal(pre.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())


def test_the_largest_of_all_rows():
    z = mostly_zero(0.4)
    codes = largest_of_all(nonzero(z), 100)
    assert len(codes.values) == 100
    floor = z.flatten().topk(100).values[-1]
    assert torch.equal(codes.values.sort().values, z[z >= floor].sort().values)
    decoded = codes.decode(torch.eye(N))
    torch.testing.assert_close(decoded, z * (z >= floor))
    assert largest_of_all(codes, 200) is codes


def test_fixed_codes_are_their_rows():
    pre = torch.randn(6, 40, generator=generator(3)).relu()
    values, columns = pre.topk(4, dim=1)
    expected = torch.zeros_like(pre).scatter(1, columns, values)
    torch.testing.assert_close(fixed(values, columns, 40).decode(torch.eye(40)), expected)
