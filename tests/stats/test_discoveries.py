"""Exact exchange tests against enumeration, and their calibration."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from lorascope.stats.discoveries import adjusted, exchange_p, exchange_z


def enumerated(own, group):
    """Every way to choose one member a unit, all as likely."""
    units = [[value for value in column if value >= 0] for column in group.T]
    sums = [sum(chosen) for chosen in product(*units)]
    most = sum(max(unit) for unit in units)
    return (
        sum(s >= sum(own) for s in sums) / len(sums),
        sum(s >= most for s in sums) / len(sums),
    )


def test_p_values_are_those_of_all_exchanges():
    random = np.random.default_rng(0)
    group = random.integers(-1, 3, size=(4, 6, 5))
    group[0] = random.integers(0, 3, size=(6, 5))
    p, least = exchange_p(group[0], group)
    for test in range(6):
        expected = enumerated(group[0, test], group[:, test])
        assert (p[test], least[test]) == pytest.approx(expected)


def test_by_hand():
    own = np.array([[2, 0, 1]])
    group = np.stack([own, [[0, 0, 1]], [[0, 1, 1]]])
    # 3 of a group of 3 each: (2, 0, 0), (0, 0, 1), (1, 1, 1); the sum is 3, the most 4.
    p, least = exchange_p(own, group)
    assert p[0] == pytest.approx(1 / 3)
    assert least[0] == pytest.approx(1 / 9)


def test_p_values_are_uniform_where_everything_is_exchangeable():
    random = np.random.default_rng(1)
    rates = random.uniform(0.2, 0.8, size=(1, 4000, 20))
    group = random.binomial(2, rates, size=(4, 4000, 20))
    p, _ = exchange_p(group[0], group)
    for level in (0.01, 0.05, 0.1, 0.3):
        share = (p <= level).mean()
        # Exact tests of counts are at most at their level; sums are whole, so often below it.
        assert share <= level + 3 * np.sqrt(level / 4000)
        assert share >= 0.25 * level


def test_z_has_the_moments_of_all_exchanges():
    random = np.random.default_rng(2)
    group = random.gamma(0.5, size=(3, 1, 6))
    sums = [sum(chosen) for chosen in product(*group[:, 0].T)]
    z = exchange_z(group[0], group)[0]
    assert z == pytest.approx((group[0].sum() - np.mean(sums)) / np.std(sums))
    alike = np.ones((3, 2, 6))
    assert exchange_z(alike[0], alike).tolist() == [0, 0]


def test_adjusted_p_values_are_scipys():
    p = np.random.default_rng(3).uniform(size=200) ** 3
    assert adjusted(p) == pytest.approx(stats.false_discovery_control(p))
    assert len(adjusted(np.array([]))) == 0
