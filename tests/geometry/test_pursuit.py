"""Non-negative pursuit against hand arithmetic, scipy and a slow row-by-row version."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from lorascope.geometry.chance import isotropic
from lorascope.geometry.cosine import unit_rows
from lorascope.geometry.pursuit import (
    nonnegative_fit,
    principal_components,
    pursue,
    subspace_residuals,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def coherent_directions(n, d, seed=0):
    """Directions of uneven norms that share a common part, so that fits drop many of them."""
    random = seeded(seed)
    directions = isotropic(n, d, random) + 0.8 * isotropic(1, d, random)
    return directions * torch.linspace(0.5, 2.0, n)[:, None]


def rows_near_sums(directions, n, seed):
    """Sums of a few directions, two of three with positive signs, and noise."""
    random = seeded(seed)
    z = torch.randn(n, len(directions), generator=random) + 0.4
    z *= torch.rand(z.shape, generator=random) < 0.15
    return z @ directions + 0.3 * torch.randn(n, directions.shape[1], generator=random)


def slow_pursuit(x, directions, k, given=None):
    """Support, coefficients and residual norms of one row, in numpy."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    fixed = [] if given is None else [given]
    support = []

    def fitted():
        atoms = np.array(fixed + [directions[i] for i in support])
        if not len(atoms):
            return np.zeros(0), x
        z, _ = nnls(atoms.T, x)
        return z, x - z @ atoms

    z, left = fitted()
    norms = [np.linalg.norm(left)]
    for _ in range(k):
        products = unit @ left
        products[support] = -np.inf
        if products.max() > 1e-3 * np.linalg.norm(left):
            support.append(int(products.argmax()))
            z, left = fitted()
        norms.append(np.linalg.norm(left))
    return support, z[len(fixed) :], norms


def test_choices_and_refits_by_hand():
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]], dtype=torch.float64)
    # (1, 2): products 1, 2.2, 2. Left of it (−0.32, 0.24); then the third with 0.24. Keeping 2.2
    # would leave (−0.32, 0); fitted anew, 5/3 and 2/3 (half of it on the row of norm 2) leave none.
    found = pursue(torch.tensor([[1.0, 2.0]], dtype=torch.float64), directions, 2)
    assert found.support.tolist() == [[1, 2]]
    assert found.coefficients[0].tolist() == pytest.approx([5 / 3, 1 / 3])
    assert found.residuals[0].tolist() == pytest.approx([5**0.5, 0.4, 0.0], abs=1e-12)


def test_an_early_choice_is_dropped_by_the_refit():
    directions = torch.tensor([[1.0, 1.0, 0.3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # (2, 1.5, −0.1): the first direction has the largest product, 3.47/√2.09 = 2.400, against 2.
    # With both others chosen it would be wanted with a negative sign, and goes.
    found = pursue(torch.tensor([[2.0, 1.5, -0.1]]), directions, 3)
    assert found.support.tolist() == [[0, 1, 2]]
    assert found.coefficients[0].tolist() == pytest.approx([0.0, 2.0, 1.5])
    after_two = np.hypot(1.5 - 1.9497 / 2.09**0.5, -0.1 - 0.3 * 1.9497 / 2.09**0.5)
    expected = [6.26**0.5, (6.26 - 3.47**2 / 2.09) ** 0.5, after_two, 0.1]
    assert found.residuals[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("with_given", [False, True])
def test_equals_a_slow_pursuit_of_each_row(with_given):
    directions = coherent_directions(60, 20)
    rows = rows_near_sums(directions, 80, seed=1)
    given = 3 * torch.randn(20, generator=seeded(12)) if with_given else None
    found = pursue(rows, directions, 12, given)
    dropped = ended = 0
    for i, x in enumerate(rows.double().numpy()):
        vector = None if given is None else given.double().numpy()
        support, z, norms = slow_pursuit(x, directions.double().numpy(), 12, vector)
        assert found.support[i].tolist() == support + [-1] * (12 - len(support))
        np.testing.assert_allclose(found.coefficients[i, : len(support)].numpy(), z, atol=1e-6)
        assert not found.coefficients[i, len(support) :].any()
        np.testing.assert_allclose(found.residuals[i].numpy(), norms, atol=1e-6)
        dropped += (z == 0).sum()
        ended += len(support) < 12
    assert dropped > 10
    assert 5 < ended < 70


def test_coefficients_are_the_exact_fit_on_the_support():
    directions = coherent_directions(200, 30, seed=2)
    rows = rows_near_sums(directions, 50, seed=3)
    found = pursue(rows, directions, 16)
    assert (found.coefficients >= 0).all()
    for support, z, residual, x in zip(
        found.support, found.coefficients, found.residuals[:, -1], rows, strict=True
    ):
        exact, left = nnls(directions[support].T.double().numpy(), x.double().numpy())
        np.testing.assert_allclose(z.numpy(), exact, atol=1e-6)
        assert residual.item() == pytest.approx(left, abs=1e-6)


def test_fit_is_that_of_scipy_whatever_the_start():
    random = seeded(4)
    design = torch.randn(200, 9, 12, generator=random, dtype=torch.float64) + 0.5
    x = torch.randn(200, 12, generator=random, dtype=torch.float64)
    gram, products = design @ design.mT, (design @ x[:, :, None]).squeeze(2)
    for start in (torch.zeros(200, 9), torch.ones(200, 9), torch.rand(200, 9, generator=random)):
        z, free = nonnegative_fit(gram, products, start > 0.5)
        expected = [nnls(d.T.numpy(), v.numpy())[0] for d, v in zip(design, x, strict=True)]
        np.testing.assert_allclose(z.numpy(), np.array(expected), atol=1e-9)
        assert torch.equal(free, z > 0)


def test_planted_sparse_sums_are_recovered():
    random = seeded(5)
    directions = isotropic(100, 64, random)
    support = torch.stack([torch.randperm(100, generator=random)[:4] for _ in range(300)])
    z = 1 + torch.rand(300, 4, generator=random)
    rows = (z[:, :, None] * directions[support]).sum(1)
    found = pursue(rows, directions, 8)
    # A wrong choice on the way is possible; fitted anew it goes, and the right ones remain.
    assert found.residuals[:, -1].max() < 1e-5
    dense = torch.zeros(300, 101, dtype=torch.float64)
    dense.scatter_(1, found.support % 101, found.coefficients)
    planted = torch.zeros(300, 101, dtype=torch.float64).scatter_(1, support, z.double())
    torch.testing.assert_close(dense[:, :100], planted[:, :100], atol=1e-5, rtol=0)
    assert (found.support == -1).any()


def test_signed_sums_are_not_expressed():
    directions = torch.eye(3)
    found = pursue(torch.tensor([[2.0, -1.0, -2.0], [-1.0, -1.0, 0.0]]), directions, 3)
    assert found.support.tolist() == [[0, -1, -1], [-1, -1, -1]]
    assert found.residuals[0].tolist() == pytest.approx([3.0, 5**0.5, 5**0.5, 5**0.5])
    assert found.residuals[1].tolist() == pytest.approx([2**0.5] * 4)


def test_given_direction_is_uncounted_and_may_go():
    directions = torch.eye(3)[:2]
    given = torch.tensor([0.0, 1.0, 2.0])
    rows = torch.tensor([[3.0, 2.0, 4.0], [1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    found = pursue(rows, directions, 1, given)
    assert found.support.tolist() == [[0], [1], [-1]]
    assert found.given.tolist() == pytest.approx([2.0, 0.0, 0.0])
    assert found.coefficients[:, 0].tolist() == pytest.approx([3.0, 2.0, 0.0])
    assert found.residuals[0].tolist() == pytest.approx([3.0, 0.0], abs=1e-7)
    assert found.residuals[1].tolist() == pytest.approx([6**0.5, 2**0.5])


def test_error_falls_with_k_and_a_longer_search_begins_like_a_shorter_one():
    directions = coherent_directions(80, 24, seed=6)
    rows = rows_near_sums(directions, 40, seed=7)
    long, short = pursue(rows, directions, 20), pursue(rows, directions, 7)
    assert (long.residuals.diff(dim=1) <= 1e-12).all()
    assert (long.residuals.diff(dim=1) < -1e-4).double().mean() > 0.5
    torch.testing.assert_close(long.residuals[:, :8], short.residuals)
    assert torch.equal(long.support[:, :7], short.support)


def test_chunks_copies_and_zeros_change_nothing(monkeypatch):
    directions = coherent_directions(40, 10, seed=8)
    rows = rows_near_sums(directions, 30, seed=9)
    whole = pursue(rows, directions, 6)
    doubled = pursue(rows, torch.cat([directions, 2 * directions, torch.zeros(1, 10)]), 6)
    torch.testing.assert_close(doubled.residuals, whole.residuals, atol=1e-6, rtol=0)
    monkeypatch.setattr("lorascope.geometry.pursuit._MEMORY", 7 * (8 * 7 * 16 + 160))
    for ours, theirs in zip(pursue(rows, directions, 6), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_screening_in_bfloat16_changes_nothing(monkeypatch):
    directions = coherent_directions(300, 24, seed=13)
    rows = rows_near_sums(directions, 60, seed=14)
    plain = pursue(rows, directions, 10)
    monkeypatch.setattr("lorascope.geometry.pursuit._WIDE", 0)
    monkeypatch.setattr("lorascope.geometry.pursuit.bfloat16_pays", lambda *_: True)
    screened = pursue(rows, directions, 10)
    assert torch.equal(screened.support, plain.support)
    torch.testing.assert_close(screened.residuals, plain.residuals)
    # With a single candidate, rounding is seen to matter.
    monkeypatch.setattr("lorascope.geometry.pursuit._CANDIDATES", 1)
    assert not torch.equal(pursue(rows, directions, 10).support, plain.support)


@pytest.mark.parametrize(
    ("shape", "k", "message"),
    [((2, 3), 1, "rows, directions, given are 3, 4, 4"), ((2, 4), 6, "k=6"), ((2, 4), 0, "k=0")],
)
def test_what_does_not_fit_is_refused(shape, k, message):
    with pytest.raises(ValueError, match=message):
        pursue(torch.zeros(shape), torch.eye(4), k)


def test_principal_components_are_those_of_numpy_on_held_out_rows():
    random = seeded(10)
    mixing = torch.randn(8, 8, generator=random, dtype=torch.float64)
    probe = torch.randn(500, 8, generator=random, dtype=torch.float64) @ mixing + 2.0
    held_out = torch.randn(60, 8, generator=random, dtype=torch.float64) @ mixing + 1.5
    mean = probe.mean(0)
    found = subspace_residuals(held_out, mean, principal_components(probe.T.cov(), 5))
    right = np.linalg.svd((probe - mean).numpy(), full_matrices=False)[2]
    centred = (held_out - mean).numpy()
    for k in range(6):
        left = centred - centred @ right[:k].T @ right[:k]
        np.testing.assert_allclose(found[:, k].numpy(), np.linalg.norm(left, axis=1), atol=1e-10)
    with pytest.raises(ValueError, match="k=9"):
        principal_components(probe.T.cov(), 9)


def test_all_components_leave_nothing():
    rows = torch.randn(20, 6, generator=seeded(11))
    basis = principal_components(rows.T.cov(), 6)
    assert subspace_residuals(rows, rows.mean(0), basis)[:, -1].max() < 1e-12
    assert unit_rows(basis.T).allclose(basis.T)
