"""CKA from sums against CKA from N × N Gram matrices."""

import math

import numpy as np
import pytest
import torch

from lorascope.geometry import cka as geometry_cka
from lorascope.geometry.cka import centred_product, cka, hsic


def sets(n=60, dx=7, dy=5, offset=0.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, dx, generator=g) * torch.linspace(0.2, 2, dx) + offset
    y = torch.randn(n, dy, generator=g) + 0.5 * x[:, :dy].square() - offset
    return x, y


def plain_from_grams(x, y):
    centring = np.eye(len(x)) - 1 / len(x)
    k, m = centring @ (x @ x.T) @ centring, centring @ (y @ y.T) @ centring
    return (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())


def unbiased_hsic(k, m):
    """Song et al. 2012, equation 5, as written."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def debiased_from_grams(x, y):
    k, m = x @ x.T, y @ y.T
    return unbiased_hsic(k, m) / math.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))


@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
def test_both_forms_equal_the_gram_matrices(offset):
    x, y = sets(offset=offset)
    found = cka(x, y)
    a, b = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    assert found.plain == pytest.approx(plain_from_grams(a, b), abs=1e-10)
    assert found.debiased == pytest.approx(debiased_from_grams(a, b), abs=1e-10)
    assert abs(found.plain - found.debiased) > 0.01


def test_unbiased_hsic_is_song_et_al_up_to_a_factor_of_the_rows():
    x, y = sets()
    a, b = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    expected = unbiased_hsic(a @ a.T, b @ b.T) * 60 * 57
    assert hsic(x, y).unbiased == pytest.approx(expected, rel=1e-10)


def test_more_rows_than_a_chunk_holds():
    x, y = sets(n=2500)
    a, b = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    assert cka(x, y).plain == pytest.approx(plain_from_grams(a, b), abs=1e-10)
    assert cka(x, y).debiased == pytest.approx(debiased_from_grams(a, b), abs=1e-10)


def test_the_product_is_that_of_rows_about_their_means():
    x, y = sets(n=1500, offset=4.0)
    a, b = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    product = centred_product(x, y)
    torch.testing.assert_close(product, a.T @ b, rtol=1e-10, atol=1e-8)
    assert hsic(x, y, product) == hsic(x, y)
    assert hsic(x, y, 2 * product) != hsic(x, y)


def test_wide_sets_are_multiplied_in_float32(monkeypatch):
    x, y = sets(n=1500, dx=90, dy=90)
    exact = cka(x, y)
    assert centred_product(x, y).dtype == torch.float64
    monkeypatch.setattr(geometry_cka, "_NARROW", 89)
    assert centred_product(x, y).dtype == torch.float32
    assert centred_product(x, y[:, :5]).dtype == torch.float64
    found = cka(x, y)
    assert (found.plain, found.debiased) != (exact.plain, exact.debiased)
    assert (found.plain, found.debiased) == pytest.approx((exact.plain, exact.debiased), abs=1e-6)


def test_a_set_with_itself_scaled_rotated_and_moved_is_one():
    x, _ = sets()
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(1))).Q
    found = cka(x, 3 * x @ rotation + 2)
    assert found.plain == pytest.approx(1.0, abs=1e-6)
    assert found.debiased == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_a_set_without_variance_has_no_cka(value):
    x, _ = sets(n=1100)
    assert math.isnan(cka(x, torch.full((1100, 3), value)).plain)
    assert math.isnan(cka(x, torch.full((1100, 3), value)).debiased)


def test_too_few_or_unpaired_rows_are_refused():
    x, y = sets()
    with pytest.raises(ValueError, match="at least 4 rows, 3 seen"):
        cka(x[:3], y[:3])
    with pytest.raises(ValueError, match="not paired: 60 and 59"):
        cka(x, y[:59])
