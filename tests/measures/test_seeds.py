"""Numbers over seeds: by hand, against ANOVA done otherwise, and where there is no difference."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from lorascope.measures.seeds import condition_shares
from lorascope.results import Estimate, Estimates, Key, Null
from lorascope.results.seeds import pooled
from lorascope.stats.hierarchical import pooled_interval

GROUPS = {"a": "a", "b": "b"}


def number(value, adapter, seed, site="layers.1", measure="angle.mean"):
    chance = Null("isotropic", value + 1, value, value + 2)
    place = Key(adapter, 4, site, seed, "delta", compared="base", k=8)
    return Estimate(measure, value, (value - 1, value + 1), 8, "degrees", (chance,), place)


def table(values, groups=GROUPS):
    """One adapter a row, one dictionary seed a column."""
    return [
        number(float(value), adapter, seed)
        for adapter, row in zip(groups, values, strict=True)
        for seed, value in enumerate(row)
    ]


def test_over_seeds_by_hand():
    first, second = pooled(table([[10.0, 12.0, 17.0], [1.0, 1.0, 4.0]]), GROUPS)
    assert (first.estimate.value, second.estimate.value) == (13.0, 2.0)
    # Deviations −3, −1, 4: s² = 26 / 2. A dictionary's angles are its own: seeds hold all.
    half = stats.t.ppf(0.975, 2) * math.sqrt(13 / 3)
    assert first.estimate.interval == pytest.approx((13 - half, 13 + half))
    assert first.estimate.key == Key("a", 4, "layers.1", None, "delta", compared="base", k=8)
    assert first.spread[1] == pytest.approx(math.sqrt(13))
    assert math.isnan(first.spread[0])
    (chance,) = first.estimate.nulls
    assert (chance.name, chance.low, chance.level, chance.high) == ("isotropic", 10, 14, 19)
    # Every seed lies 1 below its own level: only what a seed itself leaves open remains.
    assert chance.difference == pytest.approx((-1 - math.sqrt(2), -1 + math.sqrt(2)))


def test_differences_are_pooled_each_on_its_own_side():
    def at(seed, value, difference):
        base = Null("base model", 1.0, 0.5, 1.5, rival=True, difference=difference, p=0.5)
        place = Key("a", seed=seed)
        return Estimate("response_loss", value, (0.1, 3.0), 9, "nats/token", (base,), place)

    found = Estimates([at(0, 0.6, (-0.5, -0.1)), at(1, 0.8, (-0.5, -0.1))]).over_seeds()
    (one,) = found
    # Gaps −0.4 and −0.2; down 0.1 and 0.3, up 0.3 and 0.1.
    (null,) = one.nulls
    assert null.difference == pytest.approx(pooled_interval([-0.4, -0.2], (0.2, 0.2)))
    assert one.interval == pytest.approx(pooled_interval([0.6, 0.8], (0.6, 2.3)))
    assert (null.rival, null.p, one.margin, one.key.seed) == (True, None, None, None)
    assert one.verdict == "not settled"


def test_draws_of_a_null_hold_the_seeds_already():
    def at(seed, value):
        drawn = Null("null adapters", 1.0, 0.9, 1.2, True, (value - 1.2, value - 0.9), draws=5)
        return Estimate("overlap", value, (value, value), 9, "share", (drawn,), Key("a", seed=seed))

    (one,) = Estimates([at(0, 1.4), at(1, 2.0)]).over_seeds()
    assert one.nulls[0].difference == pytest.approx((0.5, 0.8))
    assert one.verdict == "above"


def test_pooling_keeps_margins_and_leaves_lone_numbers_as_they_are():
    lone, *two = table([[5.0], [2.0, 2.0]])
    marked = [dataclasses.replace(one, margin=4.0) for one in (lone, *two)]
    first, second = Estimates(marked).over_seeds({"a": "first", "b": "b"})
    assert first == marked[0].at(dataclasses.replace(lone.key, adapter="first", seed=None))
    assert (second.value, second.margin, second.verdict) == (2.0, 4.0, "equal")


def test_no_interval_over_seeds_where_a_seed_has_none():
    two = [dataclasses.replace(e, measure="overlap") for e in table([[5.0, 7.0]], {"a": "a"})]
    two[1] = dataclasses.replace(two[1], interval=(math.nan, math.nan))
    (found,) = Estimates(two).over_seeds()
    assert found.value == 6.0
    assert math.isnan(found.interval[0])
    assert found.verdict == "no verdict"


def test_adapters_of_one_group_are_replicates_of_their_own():
    groups = {"r4-s0": "r4", "r4-s1": "r4"}
    (found,) = pooled(table([[10.0, 14.0], [20.0, 24.0]], groups), groups)
    assert found.values == (12.0, 22.0)
    assert (found.estimate.value, found.estimate.key.adapter, found.n) == (17.0, "r4", 4)
    # Dictionaries: variance 8 in both. Adapters: the means' variance 50 less 8/2.
    assert found.spread == pytest.approx((math.sqrt(46), math.sqrt(8)))


def test_a_condition_with_one_number_has_nothing_over_seeds():
    assert pooled(table([[1.0], [2.0]]), GROUPS) == []
    assert condition_shares(table([[1.0], [2.0]]), GROUPS) == []


def test_share_by_hand():
    (found,) = condition_shares(table([[1.0, 3.0], [6.0, 8.0]]), GROUPS)
    # Means 2 and 7: MSB = 2 · 12.5 = 25; within, variance 2 each: MSW = 2; F = 12.5, R = 2.
    assert found.value == pytest.approx(11.5 / 13.5)
    low, high = stats.f.ppf([0.025, 0.975], 1, 2)
    assert found.interval == pytest.approx(
        ((12.5 / high - 1) / (12.5 / high + 1), (12.5 / low - 1) / (12.5 / low + 1))
    )
    assert found.key == Key(dictionary="delta", compared="base", k=8, about="angle.mean")
    assert found.n == 4


def test_conditions_of_unlike_sizes_and_numbers_that_never_vary_are_left_out():
    uneven = [*table([[1.0, 3.0], [6.0, 8.0]]), number(5.0, "a", 9)]
    assert condition_shares(uneven, GROUPS) == []
    assert condition_shares(table([[2.0, 2.0], [2.0, 2.0]]), GROUPS) == []


def test_seeds_that_agree_give_a_share_of_one():
    (found,) = condition_shares(table([[2.0, 2.0, 2.0], [5.0, 5.0, 5.0]]), GROUPS)
    assert (found.value, found.interval) == (1.0, (1.0, 1.0))
    assert found.verdict == "above"


def draws(between, repeats=1500):
    """Shares of tables of 8 conditions and 3 seeds with that variance between conditions."""
    random = np.random.default_rng(0)
    groups = {f"c{i}": f"c{i}" for i in range(8)}
    for _ in range(repeats):
        effects = math.sqrt(between) * random.standard_normal((8, 1))
        (share,) = condition_shares(table(effects + random.standard_normal((8, 3)), groups), groups)
        yield share


def test_without_a_difference_the_share_leaves_its_chance_level_rarely():
    outside = [not s.nulls[0].low <= s.value <= s.nulls[0].high for s in draws(0.0)]
    assert np.mean(outside) == pytest.approx(0.05, abs=0.03)
    # The verdict asks for more: that the interval stays clear as well.
    assert np.mean([s.apart for s in draws(0.0)]) <= 0.05


def test_the_interval_holds_the_true_share():
    held = [s.interval[0] <= 0.75 <= s.interval[1] for s in draws(3.0)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    found = torch.tensor([s.value for s in draws(3.0)])
    assert found.mean().item() == pytest.approx(0.75, abs=0.05)
