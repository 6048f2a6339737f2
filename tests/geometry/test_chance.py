"""Random directions and rows have the law they are said to have."""

import numpy as np
import pytest
import torch
from scipy import stats

from lorascope.geometry import chance


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def skewed_covariance(d=4):
    root = torch.randn(d, d, generator=seeded(9)) * torch.tensor([3.0, 1.0, 0.5, 0.1])
    return root @ root.T


def test_isotropic_directions_are_uniform_on_the_sphere():
    x = chance.isotropic(4000, 3, seeded())
    torch.testing.assert_close(x.norm(dim=1), torch.ones(4000))
    # Archimedes: on the sphere in three dimensions each coordinate is uniform on [−1, 1].
    for axis in range(3):
        assert stats.kstest(x[:, axis].numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_covariance_root_squares_back_and_survives_negative_rounding():
    covariance = skewed_covariance()
    root = chance.covariance_root(covariance)
    torch.testing.assert_close(root @ root, covariance, rtol=1e-4, atol=1e-4)
    assert chance.covariance_root(torch.diag(torch.tensor([4.0, -1e-9]))).tolist() == [
        [2.0, 0.0],
        [0.0, 0.0],
    ]


def test_gaussian_rows_have_the_mean_and_covariance():
    covariance, mean = skewed_covariance(), torch.tensor([1.0, -2.0, 0.0, 5.0])
    rows = chance.gaussian_rows(40_000, mean, covariance, seeded())
    scale = covariance.diagonal().sqrt()
    assert ((rows.mean(0) - mean).abs() / scale).max() < 4 / 200
    error = (torch.cov(rows.T) - covariance).abs() / torch.outer(scale, scale)
    assert error.max() < 4 * np.sqrt(2) / 200


def test_covariance_matched_directions_are_normalised_gaussian_rows():
    covariance = skewed_covariance()
    x = chance.directions_from_root(20_000, chance.covariance_root(covariance), seeded())
    torch.testing.assert_close(x.norm(dim=1), torch.ones(20_000))
    reference = np.random.default_rng(0).multivariate_normal(
        np.zeros(4), covariance.numpy(), 20_000
    )
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    for axis in range(4):
        assert stats.ks_2samp(x[:, axis].numpy(), reference[:, axis]).pvalue > 0.01
    root = chance.covariance_root(covariance)
    assert torch.equal(x, chance.directions_from_root(20_000, root, seeded()))


def test_rotation_is_orthogonal_and_uniform():
    random = seeded()
    rotations = torch.stack([chance.random_rotation(3, random) for _ in range(2000)])
    torch.testing.assert_close(
        rotations @ rotations.mT, torch.eye(3).expand(2000, 3, 3), rtol=1e-5, atol=1e-5
    )
    # Unfixed QR would make the diagonal's signs lopsided; uniform columns make entries uniform.
    for entry in (rotations[:, 0, 0], rotations[:, 2, 2], rotations[:, 0, 2]):
        assert stats.kstest(entry.numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01
    reference = stats.ortho_group.rvs(3, size=2000, random_state=0)
    traces = rotations.diagonal(dim1=1, dim2=2).sum(1).numpy()
    assert stats.ks_2samp(traces, np.trace(reference, axis1=1, axis2=2)).pvalue > 0.01


def test_rotated_keeps_inner_products_and_moves_everything():
    x = torch.randn(20, 50, generator=seeded(3))
    y = chance.rotated(x, seeded(4))
    torch.testing.assert_close(y @ y.T, x @ x.T, rtol=1e-4, atol=1e-3)
    assert torch.cosine_similarity(x, y).abs().max() < 0.6


def test_random_subspace_is_orthonormal():
    q = chance.random_subspace(30, 6, seeded())
    torch.testing.assert_close(q.T @ q, torch.eye(6), rtol=0, atol=1e-5)


def test_norm_matched_keeps_norms_and_loses_directions():
    rows = torch.randn(500, 40, generator=seeded(5)) * torch.linspace(0, 9, 500)[:, None]
    random = chance.norm_matched(rows, seeded(6))
    torch.testing.assert_close(random.norm(dim=1), rows.norm(dim=1))
    mean_cosine = torch.cosine_similarity(rows[1:], random[1:]).mean().abs()
    assert mean_cosine < 4 / np.sqrt(40 * 499)


def test_shifted_moves_rows_round_by_an_offset_in_range():
    rows = torch.arange(10.0)[:, None]
    offsets = set()
    random = seeded(7)
    for _ in range(200):
        moved = chance.shifted(rows, 3, random)[:, 0]
        offset = int(-moved[0]) % 10
        assert torch.equal(moved, (torch.arange(10.0) - offset) % 10)
        offsets.add(offset)
    assert offsets == {3, 4, 5, 6, 7}
    with pytest.raises(ValueError, match="cannot move 10 rows by at least 6"):
        chance.shifted(rows, 6, random)


def test_draws_follow_the_generator_and_leave_the_global_seed_alone():
    before = torch.get_rng_state()
    rows, covariance = torch.ones(5, 4), skewed_covariance()
    for draw in (
        lambda g: chance.isotropic(5, 4, g),
        lambda g: chance.directions_from_root(5, chance.covariance_root(covariance), g),
        lambda g: chance.gaussian_rows(5, torch.zeros(4), covariance, g),
        lambda g: chance.rotated(rows, g),
        lambda g: chance.random_subspace(6, 2, g),
        lambda g: chance.norm_matched(rows, g),
    ):
        assert torch.equal(draw(seeded(1)), draw(seeded(1)))
        assert not torch.equal(draw(seeded(1)), draw(seeded(2)))
    assert torch.equal(before, torch.get_rng_state())


def test_shuffled_columns_keep_each_dimension_and_lose_their_relation():
    shared = torch.randn(3000, 1, generator=seeded())
    rows = torch.cat([shared, 2 * shared, torch.randn(3000, 1, generator=seeded(1))], dim=1)
    assert torch.corrcoef(rows.T)[0, 1] > 0.99
    found = chance.columns_shuffled(rows, seeded(2))
    assert torch.equal(found.sort(0).values, rows.sort(0).values)
    assert torch.corrcoef(found.T).fill_diagonal_(0).abs().max() < 0.06
    assert torch.equal(found, chance.columns_shuffled(rows, seeded(2)))
