"""Prediction intervals from few draws in many conditions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lorascope.errors import InputError
from lorascope.stats.moderated import moderated_prediction, moderated_variance


def misses(k: int, groups: int, spreads, repeats: int) -> np.ndarray:
    """Share of next draws outside, one a repeat; `spreads(random)` gives standard deviations."""
    random = np.random.default_rng(100 * k + groups)
    shares = []
    for _ in range(repeats):
        drawn = random.standard_normal((groups, k + 1)) * spreads(random)[:, None] + 3
        found = moderated_prediction(drawn[:, :k].tolist())
        shares.append(
            np.mean(
                [not p.low <= x <= p.high for p, x in zip(found, drawn[:, k], strict=True)],
            )
        )
    return np.array(shares)


def equal(groups: int):
    return lambda random: np.ones(groups)


def unequal(groups: int):
    return lambda random: np.sqrt(4 / random.chisquare(4, groups))


def test_a_variance_drawn_towards_the_others_by_hand():
    # (4 · 2 + 1 · 7) / (4 + 1)
    assert moderated_variance(7.0, 1, 4.0, 2.0) == pytest.approx(3.0)
    assert moderated_variance(7.0, 1, math.inf, 2.0) == 2.0


def test_one_group_alone_has_its_own_t_interval():
    (found,) = moderated_prediction([[1.0, 2.0, 4.0]])
    level, scale = 7 / 3, math.sqrt(7 / 3 * 4 / 3)
    assert found.level == pytest.approx(level)
    assert found.degrees == pytest.approx(2, rel=5e-3)
    assert found.scale == pytest.approx(scale, rel=5e-3)
    assert found.high == pytest.approx(level + stats.t.ppf(0.975, 2) * scale, rel=1e-3)
    assert found.low == pytest.approx(2 * level - found.high)
    assert found.p(level + 3.0) == pytest.approx(2 * stats.t.sf(3 / scale, 2), rel=1e-2)
    assert found.p(found.high) == pytest.approx(0.05, rel=1e-6)


def test_many_alike_groups_have_the_pooled_variance_and_nearly_normal_tails():
    random = np.random.default_rng(5)
    drawn = 2 * random.standard_normal((300, 3))
    found = moderated_prediction(drawn.tolist())
    pooled = drawn.var(axis=1, ddof=1).mean()
    scales = np.array([p.scale for p in found])
    assert scales == pytest.approx(math.sqrt(pooled * 4 / 3), rel=0.15)
    assert min(p.degrees for p in found) > 20


def test_unlike_groups_keep_their_own_spread():
    found = moderated_prediction([[0.0, 0.1, 0.2, 0.3], [0.0, 100.0, 50.0, 70.0]] * 4)
    assert found[1].scale > 50 * found[0].scale


def test_against_draws_from_the_model_weighted_by_their_likelihood():
    # Variances drawn outright, in place of the F distribution in closed form.
    draws = [[0.0, 1.0], [2.0, 2.3, 2.9], [4.0, 8.0]]
    random = np.random.default_rng(3)
    n = 400_000
    odds = np.append(np.linspace(0.1, 0.95, 12), 1.0)[random.integers(13, size=n)]
    degrees = np.where(odds < 1, 4 * odds / np.where(odds < 1, 1 - odds, 1), np.inf)
    common = np.exp(random.uniform(-9, 9, n))
    weight = np.ones(n)
    variances = []
    for group in draws:
        finite = np.where(np.isinf(degrees), 1.0, degrees)
        drawn = np.where(np.isinf(degrees), 1.0, finite / random.chisquare(finite))
        variance = common * drawn
        d, s2 = len(group) - 1, np.var(group, ddof=1)
        weight = weight * variance ** (-d / 2) * np.exp(-d * s2 / (2 * variance))
        variances.append(variance)
    for found, group, variance in zip(moderated_prediction(draws), draws, variances, strict=True):
        spread = np.sqrt(variance * (1 + 1 / len(group)))
        outside = 2 * stats.norm.sf((found.high - found.level) / spread)
        assert weight @ outside / weight.sum() == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize(("k", "groups"), [(2, 4), (3, 4), (5, 1), (2, 12)])
@pytest.mark.parametrize("spreads", [equal, unequal])
def test_leaves_out_five_per_cent(k, groups, spreads):
    shares = misses(k, groups, spreads(groups), 400 // groups)
    assert shares.mean() == pytest.approx(0.05, abs=0.01 + 3 * shares.std() / len(shares) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("groups", [1, 4, 12])
@pytest.mark.parametrize("spreads", [equal, unequal])
def test_leaves_out_between_four_and_six_per_cent(k, groups, spreads):
    shares = misses(k, groups, spreads(groups), 3000 // groups)
    assert shares.mean() == pytest.approx(0.05, abs=0.01 + 2 * shares.std() / len(shares) ** 0.5)


def test_groups_of_unequal_size_and_of_one_draw():
    found = moderated_prediction([[5.0], [1.0, 3.0, 2.0], [4.0, 8.0]])
    assert found[0].level == 5.0
    assert math.isfinite(found[0].scale)
    assert found[0].high - found[0].low > found[1].high - found[1].low


def test_equal_draws_borrow_the_spread_of_others():
    alone = moderated_prediction([[1.0, 3.0, 2.5]] * 4)
    found = moderated_prediction([[1.0, 3.0, 2.5]] * 4 + [[0.1, 0.1, 0.1]])
    assert found[4].level == 0.1
    assert 0 < found[4].scale < found[0].scale
    assert found[0].scale == pytest.approx(alone[0].scale)


def test_where_all_draws_are_equal_only_their_value_is_at_chance():
    found = moderated_prediction([[0.1] * 3, [0.7, 0.7]])
    assert (found[0].low, found[0].high, found[0].scale) == (0.1, 0.1, 0.0)
    assert found[1].p(0.7) == 1.0
    assert found[1].p(0.71) == 0.0
    assert math.isnan(found[1].p(math.nan))


def test_scale_does_not_matter():
    draws = [[1.0, 2.0], [4.0, 4.5], [0.0, 3.0]]
    small = moderated_prediction([[x * 1e-9 for x in group] for group in draws])
    for one, tiny in zip(moderated_prediction(draws), small, strict=True):
        assert tiny.high == pytest.approx(one.high * 1e-9, rel=1e-6)
        assert tiny.degrees == pytest.approx(one.degrees, rel=1e-4)


@pytest.mark.parametrize("draws", [[[1.0], [2.0]], [], [[1.0, 2.0], []], [[1.0, math.nan]]])
def test_refuses_what_has_no_spread(draws):
    with pytest.raises(InputError, match="draw"):
        moderated_prediction(draws)


def test_a_group_asked_for_alone_is_what_it_is_among_all():
    drawn = [[1.0, 2.0, 4.0], [0.1, 0.3], [5.0], [7.0, 7.0, 9.5, 8.0]]
    every = moderated_prediction(drawn)
    assert moderated_prediction(drawn, [2, 0]) == [every[2], every[0]]
    assert moderated_prediction([[1.0, 1.0], [2.0, 2.0]], [1])[0].level == 2.0
    # The others count: without them the spread is another.
    assert moderated_prediction(drawn[:1])[0].scale != every[0].scale
