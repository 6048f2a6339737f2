"""Subspaces against numpy, angles against SciPy and planted rotations."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from lorascope.geometry import krylov, subspaces
from lorascope.geometry.subspaces import (
    gram_matrix,
    numerical_rank,
    principal_angles,
    principal_subspace,
)


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


@pytest.fixture
def quick(monkeypatch):
    """Makes 200 dimensions wide; lists the precision and success of each attempt by Lanczos."""
    attempts = []

    def recorded(matrix, *arguments):
        found = leading(matrix, *arguments)
        attempts.append((matrix.dtype, found is not None))
        return found

    leading = krylov.leading_eigenvectors
    monkeypatch.setattr(subspaces, "_NARROW", 200)
    monkeypatch.setattr(krylov, "leading_eigenvectors", recorded)
    return attempts


SINGLE = [(torch.float32, True)]
DOUBLE = [(torch.float32, False), (torch.float64, True)]
K = 24


def wide(kind, n=1000, d=512):
    """Directions with a spectrum of that kind."""
    random = torch.Generator().manual_seed(11)
    rows = torch.randn(n, d, generator=random)
    axes = torch.linalg.qr(torch.randn(d, d, generator=random)).Q
    scale = {
        "flat": torch.ones(d),
        "falling": torch.arange(1, d + 1).rsqrt(),
        "steep": 10 ** (-torch.arange(d) / 8),
        "far above": torch.where(torch.arange(d) < 3, 8.0, torch.arange(1, d + 1).rsqrt()),
        "two levels": torch.where(torch.arange(d) < K, 3.0, 1.0),
    }[kind]
    return (rows * scale) @ axes.T


def exact_span(x, k):
    return torch.from_numpy(np.linalg.svd(x.numpy().astype(np.float64))[2][:k].T.copy())


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("flat", SINGLE),
        ("falling", SINGLE),
        ("two levels", SINGLE),
        ("far above", SINGLE),
        ("steep", DOUBLE),
    ],
)
def test_wide_directions_have_the_subspace_of_a_float64_svd(kind, path, quick):
    x = wide(kind)
    q = principal_subspace(x, K)
    assert quick == path
    assert q.dtype == torch.float64
    torch.testing.assert_close(q.T @ q, torch.eye(K, dtype=torch.float64), rtol=0, atol=1e-12)
    # Every column counts: the first j of them are the top-j subspace.
    for j in (1, 7, K):
        assert principal_angles(q[:, :j], exact_span(x, j)).max() < 0.05


def test_fewer_directions_than_dimensions(quick):
    x = wide("falling", n=200)
    assert principal_angles(principal_subspace(x, K), exact_span(x, K)).max() < 0.05
    assert quick == SINGLE


def test_a_gap_too_narrow_for_lanczos_is_resolved_in_float64(quick):
    random = torch.Generator().manual_seed(12)
    left = torch.linalg.qr(torch.randn(700, 512, generator=random, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(512, 512, generator=random, dtype=torch.float64)).Q
    singular = torch.linspace(5, 1, 512, dtype=torch.float64)
    singular[K] = singular[K - 1] * (1 - 1e-6)
    x = ((left * singular) @ right.T).float()
    alone = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)[:, :K]
    assert principal_angles(alone.double(), exact_span(x, K)).max() > 0.2
    assert principal_angles(principal_subspace(x, K), exact_span(x, K)).max() < 0.05
    assert quick == [(torch.float32, False), (torch.float64, False)]


def test_wide_directions_of_low_rank(quick):
    random = torch.Generator().manual_seed(13)
    x = torch.randn(500, 60, generator=random) @ torch.randn(60, 512, generator=random)
    assert principal_angles(principal_subspace(x, 30), exact_span(x, 30)).max() < 0.05
    assert quick == SINGLE
    assert principal_angles(principal_subspace(x, 60), exact_span(x, 60)).max() < 0.05
    with pytest.raises(ValueError, match=r"k=61 .* 1\.\.60"):
        principal_subspace(x, 61)


def test_k_too_large_for_lanczos_is_found_all_the_same(quick):
    x = wide("falling")
    assert principal_angles(principal_subspace(x, 200), exact_span(x, 200)).max() < 1e-3
    assert not quick
    with pytest.raises(ValueError, match=r"k=0 .* 1\.\.512"):
        principal_subspace(x, 0)


@pytest.mark.parametrize("narrow", [200, 1000])
def test_rows_left_out_of_the_gram_matrix(narrow, monkeypatch):
    monkeypatch.setattr(subspaces, "_NARROW", narrow)
    x = wide("falling")
    rest = principal_subspace(x[60:], K, gram_matrix(x) - gram_matrix(x[:60]))
    assert principal_angles(rest, exact_span(x[60:], K)).max() < 0.01
    assert principal_angles(rest, exact_span(x, K)).max() > 1


def test_float64_directions_are_never_rounded(quick):
    x = wide("flat").double()
    x[:, 0] += 1e-9 * x[:, 1]
    exact = torch.linalg.svd(x).Vh[:K].T
    assert principal_angles(principal_subspace(x, K), exact).max() < 1e-9
    assert not quick
