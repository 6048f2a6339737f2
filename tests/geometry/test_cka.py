"""CKA from sums against CKA from N × N Gram matrices."""

import math

import numpy as np
import pytest
import torch

from lorascope.geometry.cka import CkaMoments


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


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_both_forms_equal_the_gram_matrices(offset):
    x, y = sets(offset=offset)
    moments = CkaMoments().update(x, y)
    a, b = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    assert moments.plain() == pytest.approx(plain_from_grams(a, b), rel=1e-10)
    assert moments.debiased() == pytest.approx(debiased_from_grams(a, b), rel=1e-9)
    assert abs(moments.plain() - moments.debiased()) > 0.01


def test_updates_sums_and_differences_of_groups_equal_one_pass():
    x, y = sets()
    whole = CkaMoments().update(x, y)
    streamed = CkaMoments().update(x[:13], y[:13]).update(x[13:], y[13:])
    first, rest = CkaMoments().update(x[:13], y[:13]), CkaMoments().update(x[13:], y[13:])
    joined = sum((first, rest), CkaMoments())
    assert (streamed.n, joined.n, (whole - first).n) == (60, 60, 47)
    for form in (CkaMoments.plain, CkaMoments.debiased):
        assert form(streamed) == pytest.approx(form(whole), rel=1e-12)
        assert form(joined) == pytest.approx(form(whole), rel=1e-12)
        assert form(whole - first) == pytest.approx(form(rest), rel=1e-10)


def test_more_rows_than_a_chunk_holds():
    x, y = sets(n=9000)
    halves = CkaMoments().update(x[:4000], y[:4000]) + CkaMoments().update(x[4000:], y[4000:])
    assert CkaMoments().update(x, y).debiased() == pytest.approx(halves.debiased(), rel=1e-12)


def test_pairing_anew_equals_starting_again():
    x, y = sets()
    moved = y.roll(17, dims=0)
    again, fresh = CkaMoments().update(x, y).paired_anew(x, moved), CkaMoments().update(x, moved)
    assert again.plain() == pytest.approx(fresh.plain(), rel=1e-12)
    assert again.debiased() == pytest.approx(fresh.debiased(), rel=1e-12)
    with pytest.raises(ValueError, match="60 rows were seen, 10"):
        CkaMoments().update(x, y).paired_anew(x[:10], y[:10])


def test_a_set_with_itself_scaled_rotated_and_moved_is_one():
    x, _ = sets()
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(1))).Q
    moments = CkaMoments().update(x, 3 * x @ rotation + 2)
    assert moments.plain() == pytest.approx(1.0, abs=1e-6)
    assert moments.debiased() == pytest.approx(1.0, abs=1e-6)


def test_a_set_without_variance_has_no_cka():
    x, _ = sets()
    assert math.isnan(CkaMoments().update(x, torch.zeros(60, 3)).plain())
    assert math.isnan(CkaMoments().update(x, torch.zeros(60, 3)).debiased())


def test_too_few_or_unpaired_rows_are_refused():
    x, y = sets()
    with pytest.raises(ValueError, match="at least 4 rows, 3 seen"):
        CkaMoments().update(x[:3], y[:3]).debiased()
    with pytest.raises(ValueError, match="not paired: 60 and 59"):
        CkaMoments().update(x, y[:59])
