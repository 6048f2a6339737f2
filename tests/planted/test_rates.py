"""Counting false positives."""

import pytest
from scipy import stats

from lorascope.planted.rates import allowed, false_positives, is_finding
from lorascope.results import Estimate, Null


def estimate(measure, low, high):
    return Estimate(measure, (low + high) / 2, (low, high), 1, "", (Null("null", 0, -1, 1),))


def test_the_limit_is_the_binomial_s():
    for repeats in (40, 200):
        limit = allowed(repeats)
        assert stats.binom.sf(limit, repeats, 0.05) <= 0.025
        assert stats.binom.sf(limit - 1, repeats, 0.05) > 0.025
    assert (allowed(40), allowed(5)) == (5, 1)


def test_findings_on_either_side_count_unless_the_null_is_a_bound():
    for low, high, found in ((2, 3, True), (-3, -2, True), (0, 3, False)):
        assert is_finding(estimate("overlap", low, high)) == found
    assert is_finding(estimate("recovery.kl", 2, 3))
    assert not is_finding(estimate("recovery.kl", -3, -2))
    assert not is_finding(estimate("delta_norm", -3, -2))


def test_rates_by_hand():
    repeats = [
        [estimate("overlap", 2, 3), estimate("density", 0, 0)],
        [estimate("overlap", 0, 1)],
    ] * 20
    overlap, density = false_positives(repeats)
    assert (overlap.measure, overlap.found, overlap.repeats) == ("overlap", 20, 40)
    assert overlap.rate == 0.5
    assert overlap.interval == pytest.approx((0.352, 0.648), abs=1e-3)
    assert not overlap.passed
    assert (density.found, density.repeats, density.passed) == (0, 20, True)
