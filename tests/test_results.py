"""Verdicts: apart from chance only where the two intervals do not touch."""

import math
from dataclasses import FrozenInstanceError

import pytest

from lorascope.results import Estimate, Key, Null

NULL = Null("isotropic", 0.20, 0.18, 0.22)


def estimate(value, low, high, *chances):
    return Estimate("max_cosine", value, (low, high), 100, "cosine", chances)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.23, 0.30, "above chance"),
        (0.22, 0.30, "underpowered"),
        (0.20, 0.23, "at chance"),
        (0.10, 0.17, "below chance"),
        (0.10, 0.18, "underpowered"),
        (0.19, 0.21, "at chance"),
        (0.10, 0.30, "at chance"),
    ],
)
def test_verdict_by_intervals(low, high, verdict):
    assert estimate((low + high) / 2, low, high, NULL).verdict == verdict


def test_where_one_draw_decides_the_value_stands_for_its_interval():
    nothing = (math.nan, math.nan)
    assert estimate(0.225, *nothing, NULL).verdict == "above chance"
    assert estimate(0.175, *nothing, NULL).verdict == "below chance"
    assert estimate(0.21, *nothing, NULL).verdict == "at chance"


def test_how_many_would_settle_an_underpowered_number():
    # 0.04 down to its lower bound, 0.02 to clear chance: an interval half as wide, so 4 n.
    above = estimate(0.24, 0.20, 0.30, NULL)
    assert (above.verdict, above.n_to_settle, above.apart) == ("underpowered", 400, False)
    # 0.06 up to its upper bound, 0.02 to clear chance: 9 n.
    below = estimate(0.16, 0.15, 0.22, NULL)
    assert (below.verdict, below.n_to_settle) == ("underpowered", 900)
    for settled in (estimate(0.2, 0.1, 0.3, NULL), estimate(0.3, 0.25, 0.35, NULL)):
        assert settled.n_to_settle is None


def test_an_interval_without_an_end_says_no_number_that_would_settle_it():
    # A time to a loss that some draws never reach.
    for found in (estimate(0.16, 0.15, math.inf, NULL), estimate(math.inf, 0.2, math.inf, NULL)):
        assert (found.verdict, found.n_to_settle) == ("underpowered", None)


def test_the_first_null_decides_and_the_others_can_be_asked():
    strict, lenient = Null("covariance-matched", 0.3, 0.28, 0.32), NULL
    found = estimate(0.29, 0.27, 0.30, strict, lenient)
    assert (found.chance, found.verdict) == (0.3, "at chance")
    assert found.against(lenient) == "above chance"


def test_without_a_null_there_is_no_verdict():
    bare = estimate(0.5, 0.4, 0.6)
    assert math.isnan(bare.chance)
    assert bare.verdict == "no chance level"


def test_a_null_without_randomness_is_a_point():
    zero = Null.exact("zero predictor", 1.0)
    assert (zero.level, zero.low, zero.high) == (1.0, 1.0, 1.0)
    assert estimate(0.9, 0.8, 0.99, zero).verdict == "below chance"
    assert estimate(0.9, 0.8, 1.0, zero).verdict == "underpowered"
    assert estimate(1.0, 0.8, 1.1, zero).verdict == "at chance"


def test_a_place_is_given_to_a_copy():
    found = estimate(0.5, 0.4, 0.6, NULL)
    placed = found.at(Key(adapter="r4", rank=4, site="layers.2"))
    assert (placed.key.adapter, placed.key.rank, placed.key.site) == ("r4", 4, "layers.2")
    assert found.key == Key()
    assert placed.at(Key()) == found
    with pytest.raises(FrozenInstanceError):
        found.value = 1.0


def test_in_words():
    assert str(estimate(0.29123, 0.27, 0.31, NULL)) == (
        "max_cosine 0.2912 [0.27, 0.31], chance 0.2 (isotropic): above chance"
    )
    assert str(estimate(0.5, 0.4, 0.6)) == "max_cosine 0.5 [0.4, 0.6]"
