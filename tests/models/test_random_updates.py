"""Random updates have the spectrum asked for and no direction of their own."""

import pytest
import torch
from torch.linalg import svdvals

from lorascope.errors import NoNullAdapter
from lorascope.models import random_updates
from lorascope.models.random_updates import (
    Rounding,
    factor_spectrum,
    random_basis,
    random_factors,
    same_spectrum,
)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(7, 3, 9), (3, 5, 9), (9, 5, 3), (4, 4, 4)])
def test_factors_have_the_spectrum_of_other_factors(shape):
    out, r, width = shape
    B, A = torch.randn(2, out, r, generator=random()), torch.randn(2, r, width, generator=random(1))
    S = factor_spectrum(B, A)
    assert S.shape == (2, min(shape))
    torch.testing.assert_close(S, svdvals(B.double() @ A.double())[:, : min(shape)])
    new = random_factors(S, shape, random(2))
    assert (new.B.shape, new.A.shape) == (B.shape, A.shape)
    torch.testing.assert_close(svdvals(new.B @ new.A)[:, : min(shape)], S)
    # of equal size on either side
    torch.testing.assert_close(new.B.norm(), new.A.norm())


def test_a_basis_is_haar():
    """Of 4,000 random rotations of three dimensions; entries have mean 0 and mean square 1/3.

    Without the sign correction the diagonal of a QR's Q has a mean far from 0.
    """
    Q = random_basis((4000, 3, 3), random())
    torch.testing.assert_close(Q.mT @ Q, torch.eye(3).double().expand(4000, 3, 3))
    spread = (1 / 3 / 4000) ** 0.5
    assert (Q.mean(dim=0).abs() < 4 * spread).all()
    # Var[Q²] = 4/45 for a coordinate of a point on the sphere
    assert ((Q.square().mean(dim=0) - 1 / 3).abs() < 4 * (4 / 45 / 4000) ** 0.5).all()
    # E[Q_ii Q_jj] = E[Q_ij Q_ji] = 0 on O(3): both determinants occur alike
    assert abs(float((torch.linalg.det(Q) > 0).double().mean()) - 0.5) < 4 * 0.5 / 4000**0.5


def test_a_rotation_is_haar():
    """The identity between two rotations is a rotation; without signs its diagonal has a mean."""
    Q = same_spectrum(torch.eye(3).expand(4000, 3, 3), random())
    torch.testing.assert_close(Q.mT @ Q, torch.eye(3).double().expand(4000, 3, 3))
    assert (Q.mean(dim=0).abs() < 4 * (1 / 3 / 4000) ** 0.5).all()
    assert ((Q.square().mean(dim=0) - 1 / 3).abs() < 4 * (4 / 45 / 4000) ** 0.5).all()


@pytest.mark.parametrize("largest", [2048, 4])
def test_a_random_matrix_of_the_same_spectrum(monkeypatch, largest):
    """Haar rotations, and the fast ones that wide matrices get."""
    monkeypatch.setattr(random_updates, "HAAR", largest)
    matrix = torch.randn(24, 3, generator=random()) @ torch.randn(3, 40, generator=random(1))
    U, _, Vh = torch.linalg.svd(matrix)
    overlaps = []
    for seed in range(60):
        drawn = same_spectrum(matrix, random(10 + seed)).float()
        torch.testing.assert_close(svdvals(drawn), svdvals(matrix), rtol=1e-5, atol=1e-4)
        theirs, _, right = torch.linalg.svd(drawn)
        left = (U[:, :3].T @ theirs[:, :3]).square().sum() / 3
        overlaps.append((float(left), float((Vh[:3] @ right[:3].T).square().sum() / 3)))
    left, right = torch.tensor(overlaps).mean(dim=0)
    # mean squared cosines 3/24 and 3/40; each overlap has a spread of about 0.06 and 0.04
    assert float(left) == pytest.approx(3 / 24, abs=0.03)
    assert float(right) == pytest.approx(3 / 40, abs=0.02)


def test_each_matrix_of_a_stack_is_rotated_by_itself():
    one = torch.randn(5, 6, generator=random())
    drawn = same_spectrum(torch.stack([one, one, 2 * one]), random(1))
    assert drawn.shape == (3, 5, 6)
    torch.testing.assert_close(svdvals(drawn[2]), 2 * svdvals(one.double()))
    assert (drawn[0] - drawn[1]).norm() > 0.5 * one.norm()


def test_a_vector_keeps_its_norm():
    vector = torch.tensor([3.0, 0.0, 4.0])
    drawn = torch.stack([same_spectrum(vector, random(seed)) for seed in range(2000)])
    torch.testing.assert_close(drawn.norm(dim=1), torch.full((2000,), 5.0).double())
    # each coordinate has mean 0 and variance 25/3
    assert (drawn.mean(dim=0).abs() < 4 * (25 / 3 / 2000) ** 0.5).all()
    assert same_spectrum(torch.zeros(3), random()).norm() == 0
    assert float(same_spectrum(torch.tensor(-2.0), random()).abs()) == pytest.approx(2)


def test_what_rounding_swallows_is_refused():
    ours = torch.ones(400, 50)
    theirs = ours.clone()
    theirs[7] += 1 / 128
    rounding = Rounding()
    drawn = rounding.redrawn(ours, theirs, random())
    torch.testing.assert_close(
        svdvals(drawn - ours)[:1], svdvals(theirs - ours)[:1], rtol=1e-4, atol=0
    )
    rounding.check("a")
    # the same change spread over 20,000 numbers is below the steps of bfloat16 near 1
    halved = Rounding()
    assert halved.redrawn(ours.bfloat16(), theirs.bfloat16(), random()).dtype == torch.bfloat16
    with pytest.raises(NoNullAdapter, match="float32"):
        halved.check("a")
