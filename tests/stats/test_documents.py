"""Numbers of sums over documents: by hand, against SciPy, and by how often they cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lorascope.randomness import generator
from lorascope.stats import documents
from lorascope.stats.documents import fieller, one_less, ratio, smooth, weights
from lorascope.stats.intervals import UNKNOWN

NAN = (pytest.approx(math.nan, nan_ok=True),) * 2
SIZES = torch.tensor([4.0, 5.0, 6.0, 5.0, 4.0, 6.0, 5.0, 5.0, 4.0, 6.0])
MEANS = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0, 2.0, 4.0, -0.5, 1.5, 0.0])


def test_a_document_weighs_a_tenth_at_most():
    # Of 100 and eleven times 5, 5.5 is a tenth of 5.5 + 11 · 5 less its own share: L = (L + 55)/10.
    tokens = torch.tensor([100.0, *[5.0] * 11])
    longest = 55 / 9
    assert weights(tokens) == pytest.approx([longest / 100, *[1.0] * 11])
    assert longest == pytest.approx((longest + 55) / 10)
    # Two that are too long: L = (2 L + 50) / 10.
    found = weights(torch.tensor([100.0, 5.0, 70.0, *[5.0] * 9]))
    assert (found[0] * 100, found[2] * 70) == pytest.approx((50 / 8, 50 / 8))
    assert weights(SIZES).tolist() != [1.0] * 10
    assert weights(torch.cat([SIZES, SIZES])).tolist() == [1.0] * 20


def test_ten_documents_or_fewer_weigh_alike_and_below_eight_nothing_is_weighed():
    for count in (8, 9, 10):
        tokens = torch.arange(1.0, count + 1)
        weighed = weights(tokens) * tokens
        assert weighed == pytest.approx([float(weighed[0])] * count)
    assert weights(torch.tensor([9.0, *[1.0] * 6])).tolist() == [1.0] * 7
    # Documents without tokens are none.
    assert weights(torch.tensor([9.0, *[1.0] * 6, 0.0, 0.0])).tolist() == [1.0] * 9


@pytest.mark.parametrize("count", [8, 10, 11, 23, 60])
def test_no_document_ever_weighs_more(count):
    tokens = torch.randn(count, generator=generator(count), dtype=torch.float64).mul(2).exp()
    weighed = weights(tokens) * tokens
    assert float(weighed.max() / weighed.sum()) <= max(0.1, 1 / count) + 1e-9
    # As they are now they need no more of it.
    assert weights(weighed) * weighed == pytest.approx(weighed)


def test_a_mean_over_tokens_by_hand():
    sizes, means = torch.cat([SIZES, SIZES]), torch.cat([MEANS, MEANS + 1])
    value, (low, high) = ratio(sizes * means, sizes)
    y, x = (sizes * means).double().numpy(), sizes.double().numpy()
    assert value == pytest.approx(y.sum() / x.sum())
    without = np.array([(y.sum() - y[i]) / (x.sum() - x[i]) for i in range(20)])
    half = stats.t.ppf(0.975, 19) * math.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum())
    assert (low, high) == pytest.approx((value - half, value + half))
    narrow = ratio(sizes * means, sizes, tail=0.05)[1]
    assert (narrow[1] - value) / half == pytest.approx(
        stats.t.ppf(0.95, 19) / stats.t.ppf(0.975, 19)
    )


def test_value_and_interval_are_of_the_same_weights():
    tokens = torch.tensor([1000.0, *[10.0] * 19])
    means = torch.tensor([5.0, *torch.linspace(0, 1, 19).tolist()])
    value, (low, high) = ratio(tokens * means, tokens)
    # The long one weighs a tenth: 0.1 · 5 + 0.9 · 0.5, not 4.3.
    assert value == pytest.approx(0.95)
    assert (low + high) / 2 == pytest.approx(value, abs=0.2)
    assert high < 4


def test_equal_documents_give_scipys_t_interval():
    _, interval = ratio(MEANS, torch.ones(10))
    expected = stats.t.interval(0.95, 9, loc=MEANS.mean(), scale=stats.sem(MEANS.numpy()))
    assert interval == pytest.approx(expected, rel=1e-6)


def test_numbers_of_one_sign_keep_it():
    values = torch.tensor([0.01, 0.02, 0.5, 0.03, 9.0, 0.02, 0.04, 0.3, 0.1])
    value, (low, high) = ratio(values, torch.ones(9))
    assert 0 < low < value < high
    assert high - value > value - low
    turned = ratio(-values, torch.ones(9))
    assert turned == (-value, pytest.approx((-high, -low)))
    # By hand: the jackknife of the logarithm.
    x = values.double().numpy()
    logs = np.log((x.sum() - x) / 8)
    half = stats.t.ppf(0.975, 8) * math.sqrt(8 / 9 * ((logs - logs.mean()) ** 2).sum())
    assert high == pytest.approx(value * math.exp(half))


def test_fewer_than_eight_documents_have_no_interval():
    value, interval = ratio(MEANS[:7], SIZES[:7])
    assert value == pytest.approx(float(MEANS[:7].sum() / SIZES[:7].sum()))
    assert interval == NAN
    # Those without tokens do not count.
    assert (
        ratio(torch.cat([MEANS[:7], torch.zeros(5)]), torch.cat([SIZES[:7], torch.zeros(5)]))[1]
        == NAN
    )
    assert fieller(MEANS[:7], SIZES[:7]) == NAN
    assert smooth(lambda s: s[:, 0], MEANS[:7, None], SIZES[:7])[1] == NAN
    assert math.isnan(ratio(torch.zeros(0), torch.zeros(0))[0])


def test_fieller_by_hand():
    y = torch.tensor([2.0, 1.0, 3.0, 2.0, 4.0, 1.0, 2.0, 3.0])
    x = torch.tensor([1.0, -0.5, 2.0, 1.5, 3.0, 0.5, 1.0, 2.0])
    low, high = fieller(y, x)
    t2 = stats.t.ppf(0.975, 7) ** 2
    for rho in (low, high):
        left = (y - rho * x).double()
        assert float(left.mean()) ** 2 == pytest.approx(t2 * float(left.var()) / 8, rel=1e-6)
    assert low < float(y.sum() / x.sum()) < high
    # A denominator that may be 0 leaves no end.
    assert fieller(y, x - x.mean()) == NAN
    assert ratio(y, x, torch.ones(8))[1] == pytest.approx((low, high))
    assert ratio(1e9 * y, 1e-9 * x, torch.ones(8))[1] == pytest.approx((low * 1e18, high * 1e18))


def test_a_smooth_statistic_and_one_less():
    columns = torch.stack([MEANS, SIZES], dim=1)
    value, interval = smooth(lambda s: 1 - s[:, 0] / s[:, 1], columns, torch.ones(10))
    share, (low, high) = ratio(MEANS, SIZES, torch.ones(10))
    assert value == pytest.approx(1 - share)
    assert interval == pytest.approx((1 - high, 1 - low))
    assert one_less((share, (low, high))) == (1 - share, (1 - high, 1 - low))
    # No document may be left out of a statistic that is then none.
    assert smooth(lambda s: torch.where(s[:, 1] > 49, s[:, 0], torch.nan), columns, SIZES)[1] == NAN
    assert documents.standard_error([1.0, 2.0, 3.0]) == pytest.approx(math.sqrt(2 / 3 * 2))


def test_documents_that_agree_leave_no_spread():
    assert ratio(2 * SIZES, SIZES) == (2.0, (2.0, 2.0))
    assert ratio(torch.zeros(10), SIZES) == (0.0, (0.0, 0.0))
    assert UNKNOWN == NAN


def heavy(n, random):
    sizes = torch.randn(n, generator=random, dtype=torch.float64).mul(0.8).exp() * 50
    squares = torch.randn(3, n, generator=random, dtype=torch.float64).square().mean(0)
    effects = torch.randn(n, generator=random, dtype=torch.float64) / squares.sqrt()
    return sizes, effects


@pytest.mark.parametrize("n", [8, 20, 57, 200])
def test_covers_where_sizes_are_skewed_and_effects_have_heavy_tails(n):
    repeats = 1500
    held = paired = 0
    for i in range(repeats):
        sizes, effects = heavy(n, generator(1, n, i))
        low, high = ratio(sizes * (2 + effects), sizes)[1]
        held += low <= 2 <= high
        change = sizes * (1 + 0.3 * effects)
        other = heavy(n, generator(2, n, i))[1]
        low, high = ratio(0.6 * change + 0.2 * sizes * other, change, sizes)[1]
        paired += low <= 0.6 <= high
    # 93 to 97 %, and two standard errors of the share of 1,500.
    assert 0.93 - 0.012 <= held / repeats <= 0.97 + 0.012
    assert 0.93 - 0.012 <= paired / repeats <= 0.97 + 0.012
