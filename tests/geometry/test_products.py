"""Gram matrices from their upper blocks."""

import pytest
import torch

from lorascope.geometry.products import add_upper_, gram, mirrored


def rows(n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(d), dtype=dtype)


@pytest.mark.parametrize("d", [1, 5, 384, 385, 800])
def test_gram_is_the_product(d):
    x = rows(7, d)
    torch.testing.assert_close(gram(x), x.T @ x)
    torch.testing.assert_close(gram(x), gram(x).T, rtol=0, atol=1e-13)
    assert gram(x.float()).dtype == torch.float32


def test_chunks_add_up_and_the_sum_is_left_as_it_was():
    x = rows(50, 900)
    total = torch.zeros(900, 900, dtype=x.dtype)
    for chunk in x.split(20):
        add_upper_(total, chunk)
    before = total.clone()
    torch.testing.assert_close(mirrored(total), x.T @ x)
    assert torch.equal(total, before)
    assert not total[800:, :300].any()  # the saving: blocks below the diagonal stay empty
