"""Subspaces against numpy, angles against SciPy and planted rotations."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from lorascope.geometry.subspaces import numerical_rank, principal_angles, principal_subspace


def orthonormal(d, k, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, k, generator=g, dtype=torch.float64)).Q


@pytest.mark.parametrize("n", [8, 50])
def test_subspace_is_the_span_of_numpys_right_singular_vectors(n):
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, 20, generator=g) * torch.linspace(3, 0.1, 20)
    q = principal_subspace(x, 5)
    right = np.linalg.svd(x.numpy().astype(np.float64))[2][:5]
    np.testing.assert_allclose((q @ q.T).numpy(), right.T @ right, atol=1e-9)
    np.testing.assert_allclose((q.T @ q).numpy(), np.eye(5), atol=1e-12)


def test_smaller_k_is_a_prefix():
    x = torch.randn(30, 12, generator=torch.Generator().manual_seed(2))
    assert torch.equal(principal_subspace(x, 3), principal_subspace(x, 7)[:, :3])


@pytest.mark.parametrize("n", [6, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_beyond_the_rank_is_refused(n, dtype):
    g = torch.Generator().manual_seed(3)
    low = torch.randn(n, 4, generator=g) @ torch.randn(4, 40, generator=g)
    low = low.to(dtype)
    assert numerical_rank(low) == 4
    assert principal_subspace(low, 4).shape == (40, 4)
    with pytest.raises(ValueError, match=r"k=5 .* 1\.\.4"):
        principal_subspace(low, 5)


def test_a_steep_spectrum_is_still_full_rank():
    g = torch.Generator().manual_seed(4)
    x = torch.randn(500, 30, generator=g) * torch.logspace(0, -4, 30)
    assert numerical_rank(x) == 30


@pytest.mark.parametrize(("k1", "k2"), [(5, 5), (3, 7), (7, 3)])
def test_angles_agree_with_scipy(k1, k2):
    q1, q2 = orthonormal(20, k1, 5), orthonormal(20, k2, 6)
    expected = np.degrees(scipy.linalg.subspace_angles(q1.numpy(), q2.numpy()))[::-1]
    np.testing.assert_allclose(principal_angles(q1, q2).numpy(), expected, atol=1e-10)


def test_planted_angles_come_back_small_and_large():
    planted = torch.tensor([1e-7, 0.5, 45.0, 89.9999999], dtype=torch.float64)
    basis = orthonormal(8, 8, 7)
    radians = torch.deg2rad(planted)
    q1 = basis[:, :4]
    q2 = q1 * radians.cos() + basis[:, 4:] * radians.sin()
    angles = principal_angles(q1, q2 @ orthonormal(4, 4, 8))
    np.testing.assert_allclose(angles.numpy(), planted.numpy(), rtol=1e-6)


def test_a_subspace_makes_no_angle_with_itself():
    q = orthonormal(300, 40, 9)
    assert principal_angles(q, q @ orthonormal(40, 40, 10)).max().item() < 1e-10


def test_angles_by_hand():
    q1 = torch.eye(3)[:, :2]
    half = math.sqrt(0.5)
    q2 = torch.tensor([[1.0, 0.0], [0.0, half], [0.0, half]])
    assert principal_angles(q1, q2).tolist() == pytest.approx([0.0, 45.0], abs=1e-5)
