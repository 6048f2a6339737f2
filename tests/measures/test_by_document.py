"""Intervals over documents, by hand and against Fieller's own example of means."""

import math

import pytest
import torch
from scipy import stats

from lorascope.measures.by_document import MIN_DOCUMENTS, quotient, ratio
from lorascope.randomness import generator

VALUES = torch.tensor([1.0, 4.0, 2.0, 7.0, 3.0, 5.0, 9.0, 2.0, 6.0])
ONES = torch.ones(len(VALUES))


def test_documents_of_one_length_give_the_t_interval():
    value, (low, high) = ratio(VALUES, ONES)
    mean, error = VALUES.double().mean().item(), VALUES.double().std().item() / 3
    half = stats.t.ppf(0.975, 8) * error
    assert (value, low, high) == pytest.approx((mean, mean - half, mean + half))


def test_a_ratio_s_error_is_the_jackknife_s():
    tokens = torch.tensor([3.0, 10.0, 5.0, 12.0, 8.0, 11.0, 20.0, 4.0, 9.0])
    value, (low, _) = ratio(VALUES, tokens)
    n = len(VALUES)
    each = [((VALUES.sum() - VALUES[i]) / (tokens.sum() - tokens[i])).item() for i in range(n)]
    mean = sum(each) / n
    error = math.sqrt((n - 1) / n * sum((x - mean) ** 2 for x in each))
    assert value == pytest.approx((VALUES.sum() / tokens.sum()).item())
    assert value - low == pytest.approx(stats.t.ppf(0.975, n - 1) * error, rel=1e-4)


def test_fewer_documents_have_no_interval_and_empty_ones_do_not_count():
    few = VALUES[: MIN_DOCUMENTS - 1]
    assert all(map(math.isnan, ratio(few, torch.ones(len(few)))[1]))
    padded = torch.cat([VALUES, torch.zeros(4)])
    assert ratio(padded, torch.cat([ONES, torch.zeros(4)])) == ratio(VALUES, ONES)
    assert all(map(math.isnan, quotient(few, few, torch.ones(len(few)))[1]))


def test_a_quotient_is_fieller_s_of_two_means():
    x = torch.tensor([10.0, 12.0, 9.0, 11.0, 14.0, 8.0, 13.0, 10.0, 9.5])
    value, (low, high) = quotient(VALUES, x, ONES)
    assert value == pytest.approx((VALUES.sum() / x.sum()).item())
    for bound in (low, high):
        # At each end the mean of y − ρ x is exactly t standard errors from 0.
        apart = (VALUES - bound * x).double()
        t = abs(apart.mean().item()) / (apart.std().item() / 3)
        assert t == pytest.approx(stats.t.ppf(0.975, 8))


@pytest.mark.parametrize("seed", range(20))
def test_a_quotient_leaves_0_exactly_where_its_numerator_does(seed):
    random = generator(seed, "documents")
    tokens = torch.randint(20, 200, (12,), generator=random).double()
    won = 0.35 * tokens * (1 + 1.5 * torch.randn(12, generator=random).double())
    cost = tokens * (1 + 0.3 * torch.randn(12, generator=random).double())
    low, high = ratio(won, tokens)[1]
    share_low, share_high = quotient(won, cost, tokens)[1]
    assert (low > 0, high < 0) == (share_low > 0, share_high < 0)


def test_a_quotient_of_nothing_certain_has_no_interval():
    wild = torch.tensor([5.0, -5.0, 4.0, -4.0, 3.0, -2.0, 1.0, -1.0, 0.5])
    assert all(map(math.isnan, quotient(VALUES, wild, ONES)[1]))
