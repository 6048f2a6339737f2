"""The scale is the mean norm, not the root mean square; covariance as numpy has it."""

import numpy as np
import pytest
import torch

from lorascope.activations.scaling import KnownMoments, mean_and_covariance, mean_norm


def test_mean_norm_by_hand():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [5.0, 12.0]])
    # (5 + 0 + 13) / 3; the root mean square would be 8.04
    assert mean_norm(rows.split(2)) == pytest.approx(6.0)


def test_mean_norm_of_low_precision_rows_is_exact():
    rows = torch.full((1000, 3), 1.0, dtype=torch.bfloat16)
    assert mean_norm([rows]) == pytest.approx(3**0.5, rel=1e-6)


def test_mean_norm_refuses_what_has_no_scale():
    with pytest.raises(ValueError, match="all zero"):
        mean_norm([torch.zeros(3, 2)])
    with pytest.raises(ValueError, match="all zero"):
        mean_norm([])
    with pytest.raises(ValueError, match="NaN or infinity"):
        mean_norm([torch.tensor([[1.0, torch.nan]])])


def test_mean_and_covariance_as_numpy_far_from_the_origin():
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=random)
    rows = torch.randn(400, 5, generator=random) @ mixing + torch.tensor([1000.0, 0, -3, 50, 1])
    mean, covariance = mean_and_covariance(rows.split(37))
    exact = rows.double().numpy()
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(exact, rowvar=False), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at least two rows"):
        mean_and_covariance([torch.ones(1, 5)])


def test_known_moments_are_read_once_and_the_oldest_are_forgotten():
    random = torch.Generator().manual_seed(0)
    rows = {name: torch.randn(20, 4, generator=random) for name in "abc"}
    read = []

    def chunks(name):
        def found():
            read.append(name)
            return rows[name].split(7)

        return found

    # Of 4 + 16 numbers of 4 bytes, two fit.
    known = KnownMoments(limit=160)
    for name in "aabbac":
        found, expected = known.of(name, chunks(name)), mean_and_covariance(rows[name].split(7))
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
    assert read == ["a", "b", "c"]
    known.of("b", chunks("b"))
    known.of("a", chunks("a"))
    assert read == ["a", "b", "c", "a"]
    # One that is larger than the limit is kept as long as nothing follows it.
    small = KnownMoments(limit=1)
    assert small.of("a", chunks("a")) is small.of("a", chunks("a"))
