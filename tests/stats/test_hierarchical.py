"""Means over seeds that were measured on the same documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lorascope.stats.hierarchical import mean_reach, pooled_interval

Z = stats.norm.ppf(0.975)


def test_by_hand():
    # Seeds' variance 4, of the mean of two 2; documents' half 3.92, variance 4.
    half = 2 * Z
    low, high = pooled_interval([1.0, 1 + 2 * math.sqrt(2)], (half, half))
    t = stats.t.ppf(0.975, 1)
    expected = math.sqrt(Z**2 * 6 + (t**2 - Z**2) * 2 * (2 / 6) ** 0.75)
    mean = 1 + math.sqrt(2)
    assert (low, high) == pytest.approx((mean - expected, mean + expected))


def test_seeds_that_agree_keep_the_documents_interval():
    reach = mean_reach([(5.0, (4.0, 7.0)), (5.0, (3.0, 6.0))])
    assert reach == (1.5, 1.5)
    assert pooled_interval([5.0, 5.0], (1.5, 2.5)) == pytest.approx((3.5, 7.5))
    # One seed has nothing but its documents'.
    assert pooled_interval([5.0], (1.0, 2.0)) == (4.0, 7.0)


def test_units_of_their_own_give_the_t_interval_over_seeds():
    values = [1.0, 2.0, 6.0]
    expected = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem(values))
    assert pooled_interval(values) == pytest.approx(expected)
    assert pooled_interval(values, (0.0, 0.0)) == pytest.approx(expected)
    assert pooled_interval([2.0, 2.0]) == (2.0, 2.0)
    assert all(map(math.isnan, pooled_interval([1.0])))
    # Too few documents for an interval: none of the mean either.
    assert all(map(math.isnan, pooled_interval(values, (math.nan, math.nan))))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 0.95, 1.0])
def test_covers_at_every_share_of_the_variance(seeds, share):
    random = np.random.default_rng(seeds)
    documents, repeats, held = 20, 1500, 0
    for _ in range(repeats):
        effects = random.standard_normal(documents) * math.sqrt(1 - share)
        own = random.standard_normal(seeds) * math.sqrt(share * seeds / documents)
        half = stats.sem(effects) * 2.093024054408263
        values = (effects.mean() + own).tolist()
        low, high = pooled_interval(values, (half, half))
        held += low <= 0 <= high
    assert 0.93 - 0.012 <= held / repeats <= 0.97 + 0.012
