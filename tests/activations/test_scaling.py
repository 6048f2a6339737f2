"""The scale is the mean norm, not the root mean square; covariance as numpy has it."""

import numpy as np
import pytest
import torch

from lorascope.activations.scaling import mean_and_covariance, mean_norm


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
