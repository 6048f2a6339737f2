"""Counts beside bars: binomial tests, and that they can fail."""

import math

import pytest
from scipy import stats

from lorascope.planted.shares import LEVEL, Share


def test_most_and_least_by_the_binomial():
    worst = int(stats.binom.ppf(1 - LEVEL, 400, 0.05))
    assert Share("p", "w", worst, 400, 0.05).passed
    assert not Share("p", "w", worst + 2, 400, 0.05).passed
    least = int(stats.binom.ppf(LEVEL, 40, 0.8))
    assert Share("p", "w", least, 40, 0.8, most=False).passed
    assert not Share("p", "w", least - 2, 40, 0.8, most=False).passed


def test_the_interval_is_clopper_and_pearson_s():
    # Quantiles of beta(k, n − k + 1) and beta(k + 1, n − k).
    share = Share("p", "w", 3, 60, 0.05)
    expected = stats.beta.ppf(0.025, 3, 58), stats.beta.ppf(0.975, 4, 57)
    assert share.interval == pytest.approx(expected)


def test_with_a_ceiling_the_share_itself_must_keep_its_bar():
    assert Share("p", "w", 20, 400, 0.05, ceiling=0.08).passed
    assert not Share("p", "w", 21, 400, 0.05, ceiling=0.08).passed
    assert Share("p", "w", 21, 400, 0.05).passed
    # 5 of 100 reach up to 11 %.
    assert not Share("p", "w", 5, 100, 0.05, ceiling=0.08).passed


def test_nothing_tried_is_nothing_passed():
    empty = Share("p", "w", 0, 0, 0.05)
    assert math.isnan(empty.share)
    assert not empty.passed
    assert not Share("p", "w", 0, 0, None).passed
    assert Share("p", "w", 0, 10, None).passed
