"""Paired shares against the published examples and by hand."""

import math

import pytest

from lorascope.measures.paired_shares import difference, mcnemar, ratio
from lorascope.stats.intervals import wilson_interval


def columns(both, first, second, neither):
    one = [True] * (both + first) + [False] * (second + neither)
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return one, other


@pytest.mark.parametrize(
    ("cells", "interval"),
    [
        # Newcombe 1998, table II, method 10.
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((53, 0, 0, 1), (-0.0729, 0.0729)),
    ],
)
def test_the_published_differences(cells, interval):
    assert difference(*columns(*cells)) == pytest.approx(interval, abs=6e-5)
    first, second = columns(*cells)
    low, high = difference(second, first)
    assert (-high, -low) == pytest.approx(interval, abs=6e-5)


def test_mcnemar_by_hand():
    # 5 of 6 discordant pairs on one side: 2 · (1 + 6)/64
    assert mcnemar(*columns(10, 5, 1, 4)) == pytest.approx(14 / 64)
    assert mcnemar(*columns(10, 0, 0, 4)) == 1.0


def test_a_share_over_itself_and_over_more():
    first, second = columns(6, 1, 10, 3)
    low, high = ratio(first, second)
    assert low < 7 / 16 < high < 1
    # Uncorrelated columns: MOVER of two separate Wilson intervals, by hand at the lower end.
    one, other = columns(8, 8, 8, 8)
    (l1, _), (_, u2) = wilson_interval(16, 32), wilson_interval(16, 32)
    inside = 0.25**2 - l1 * (1 - l1) * u2 * (1 - u2)
    assert ratio(one, other)[0] == pytest.approx((0.25 - math.sqrt(inside)) / (u2 * (1 - u2)))


def test_too_small_a_denominator_says_nothing():
    assert all(map(math.isnan, ratio(*columns(2, 0, 5, 13))))
    assert not any(map(math.isnan, ratio(*columns(0, 0, 8, 12))))
    assert all(map(math.isnan, difference([], [])))
