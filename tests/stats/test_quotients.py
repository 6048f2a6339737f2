"""A quotient of means over documents and its interval."""

import math

import pytest
import torch
from scipy import stats

from lorascope.randomness import generator
from lorascope.stats.documents import ratio
from lorascope.stats.quotients import quotient

VALUES = torch.tensor([1.0, 4.0, 2.0, 7.0, 3.0, 5.0, 9.0, 2.0, 6.0])
ONES = torch.ones(len(VALUES))


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
    # Documents on both sides of 0: else the mean's interval keeps its sign.
    random = generator(seed, "documents")
    tokens = torch.randint(20, 200, (12,), generator=random).double()
    won = 0.35 * tokens * (1 + 1.5 * torch.randn(12, generator=random).double())
    cost = tokens * (1 + 0.3 * torch.randn(12, generator=random).double())
    won[0], won[1] = -0.1, 0.1
    low, high = ratio(won, tokens)[1]
    share_low, share_high = quotient(won, cost, tokens)[1]
    assert (low > 0, high < 0) == (share_low > 0, share_high < 0)


def test_a_quotient_of_nothing_certain_has_no_interval():
    wild = torch.tensor([5.0, -5.0, 4.0, -4.0, 3.0, -2.0, 1.0, -1.0, 0.5])
    assert all(map(math.isnan, quotient(VALUES, wild, ONES)[1]))


def test_few_documents_have_no_interval():
    assert all(map(math.isnan, quotient(VALUES[:7], ONES[:7], ONES[:7])[1]))
    value, interval = quotient(VALUES, ONES, ONES)
    padded = [torch.cat([column, torch.zeros(3)]) for column in (VALUES, ONES, ONES)]
    assert quotient(*padded) == (value, interval)
