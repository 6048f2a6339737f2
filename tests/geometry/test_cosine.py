"""Cosines against numpy and by hand."""

import numpy as np
import pytest
import torch

from lorascope.geometry.cosine import max_cosine, unit_rows


def test_unit_rows_keeps_zero_rows_and_tiny_ones():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-15, -4e-15]])
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, -0.8]])
    torch.testing.assert_close(unit_rows(rows), expected)


def test_unit_rows_raises_precision_never_lowers_it():
    assert unit_rows(torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert unit_rows(torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_max_cosine_by_hand_is_not_symmetric():
    a = torch.tensor([[1.0, 0.0]])
    b = torch.tensor([[3.0, 4.0], [-2.0, 0.0]])
    values, indices = max_cosine(a, b)
    assert values.tolist() == pytest.approx([0.6])
    assert indices.tolist() == [0]
    values, indices = max_cosine(b, a)
    assert values.tolist() == pytest.approx([0.6, -1.0])
    assert indices.tolist() == [0, 0]


@pytest.mark.parametrize("chunk", [1, 7, 40, 512])
def test_max_cosine_agrees_with_numpy_for_every_chunk(chunk):
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(40, 11, generator=g), 5 * torch.randn(23, 11, generator=g)
    x, y = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    cosines = (x @ y.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    values, indices = max_cosine(a, b, chunk)
    np.testing.assert_allclose(values.numpy(), cosines.max(1), atol=1e-6)
    assert indices.tolist() == cosines.argmax(1).tolist()


def test_zero_row_has_cosine_zero():
    values, _ = max_cosine(torch.zeros(1, 2), torch.tensor([[-1.0, 0.0]]))
    assert values.item() == 0.0


@pytest.mark.parametrize("b", [torch.ones(3, 4), torch.ones(0, 2)])
def test_rows_that_cannot_be_compared_are_refused(b):
    with pytest.raises(ValueError, match="cannot compare"):
        max_cosine(torch.ones(3, 2), b)
