"""Leading eigenvectors against full decompositions."""

import math

import pytest
import torch

from lorascope.geometry.krylov import _Basis, leading_eigenvectors

D = 400
SPECTRA = {
    "falling": 1 / torch.arange(1.0, D + 1),
    "flat": torch.linspace(3, 1, D),
    "two levels": torch.where(torch.arange(D) < 30, 2.0, torch.linspace(1, 0.5, D)),
    # Among the top 30, 25 share one value: more than a block of them.
    "copies": torch.where(torch.arange(D) < 25, 5.0, 2 / torch.arange(1.0, D + 1)),
    "negative": torch.linspace(1, -1, D),
}


def matrix(values, seed=0):
    random = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(D, D, generator=random, dtype=torch.float64)).Q
    return (axes * values.double()) @ axes.T, axes


def sine(one, other):
    """Of the largest angle between two spans."""
    one = torch.linalg.qr(one.double()).Q
    return torch.linalg.matrix_norm(one - other @ (other.T @ one), 2).item()


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("angle", [1e-2, 1e-4])
def test_the_span_lies_within_the_angle(spectrum, angle):
    values, k = SPECTRA[spectrum], 30
    whole, axes = matrix(values)
    found = leading_eigenvectors(whole, k, k + 16, angle, -math.inf, D)
    assert found is not None
    assert found.vectors.shape == (D, k + 16)
    assert sine(found.vectors[:, :k], axes[:, :k]) < angle
    torch.testing.assert_close(found.values[:k], values[:k].double(), rtol=1e-3, atol=0)


def test_float32_is_enough_beside_a_few_large_eigenvalues():
    values = torch.where(torch.arange(D) < 5, 1.0, 1e-3 * torch.linspace(3, 1, D))
    whole, axes = matrix(values)
    found = leading_eigenvectors(whole.float(), 60, 76, 1e-3, 0.0, D)
    assert sine(found.vectors[:, :60], axes[:, :60]) < 1e-3


def test_a_steep_spectrum_takes_fewer_steps_than_a_flat_one():
    sizes = [
        len(leading_eigenvectors(matrix(SPECTRA[name])[0], 20, 36, 1e-3, 0.0, D).values)
        for name in ("falling", "flat")
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_too_few_steps_or_too_small_eigenvalues_give_nothing():
    whole, _ = matrix(SPECTRA["flat"])
    assert leading_eigenvectors(whole, 30, 46, 1e-4, 0.0, 120) is None
    assert leading_eigenvectors(whole, 30, 46, 1e-4, 3.5, D) is None
    assert leading_eigenvectors(torch.eye(D), 30, 46, 1e-4, 0.0, D) is None  # no gap anywhere


def test_the_basis_stays_orthonormal_when_the_matrix_has_nothing_left_to_give():
    basis = _Basis(torch.diag((torch.arange(D) < 40).float()), D)
    for _ in range(12):
        basis.grow()
    rows = basis.rows()
    torch.testing.assert_close(rows @ rows.T, torch.eye(192), rtol=0, atol=1e-5)
