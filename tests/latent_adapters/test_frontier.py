"""Numbers of adapters over seeds, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from lorascope.behaviours.judging import UNTOUCHED
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.flatness import effective_number, over_uniform
from lorascope.latent_adapters.frontier import (
    RANDOM_LATENTS,
    READ,
    WRITTEN,
    kept_estimate,
    over_seeds,
    overlap_estimates,
    sparsity_estimates,
)
from lorascope.measures.paired_shares import difference, ratio
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.stats.hierarchical import pooled_interval

from .conftest import LATENTS, a_dictionary


def test_effective_numbers_by_hand():
    rows = torch.tensor([[1.0, 1, 1, 1], [0, -2, 0, 0], [3, 1, 0, 0]])
    # (9 + 1)² / (81 + 1)
    assert effective_number(rows).tolist() == pytest.approx([4, 1, 100 / 82])
    assert over_uniform(rows).tolist() == pytest.approx([1, 2, 3 / math.sqrt(10) * 2])


def test_a_fresh_factor_is_at_chance_and_a_sparse_one_below():
    adapter = LatentAdapter(a_dictionary(), 2, generator=generator(0))
    found = {(e.measure, e.key.dictionary): e for e in sparsity_estimates(adapter, Key("x"))}
    assert found["latent.used", READ].value == LATENTS
    for side in (READ, WRITTEN):
        level = found["latent.effective", side].chance
        assert level == pytest.approx(LATENTS / 3, rel=0.25)
        assert found["latent.effective", side].verdict == "not settled"
    small = sparsity_estimates(adapter.cut(3, 5), Key("x"))
    found = {(e.measure, e.key.dictionary): e for e in small}
    assert [found["latent.used", side].value for side in (READ, WRITTEN)] == [
        len(ids) for ids in adapter.cut(3, 5).support()
    ]
    assert found["latent.effective", READ].verdict == "below"
    assert found["latent.largest", READ].verdict == "above"


def test_the_share_kept_is_over_the_dense_adapter_s():
    dense = [True] * 16 + [False] * 4
    cut = [True] * 12 + [False] * 8
    random = [[True] * (2 + i) + [False] * (18 - i) for i in range(5)]
    untouched = [False] * 19 + [True]
    found = kept_estimate(cut, dense, untouched, random, Key("x", size=4))
    assert found.value == pytest.approx(12 / 16)
    assert found.interval == ratio(cut, dense)
    drawn, bare = found.nulls
    assert (drawn.name, bare.name) == (RANDOM_LATENTS, UNTOUCHED)
    assert (drawn.level, bare.level) == pytest.approx((4 / 16, 1 / 16))
    assert drawn.draws == 5
    low, high = difference(cut, untouched)
    assert bare.difference == pytest.approx((low * 20 / 16, high * 20 / 16))
    # The draws hold 2 to 6 of 20: their own spread is in the difference.
    spread = 2.7764451051977987 * math.sqrt(2.5) / 20 * math.sqrt(1.2)
    assert 0.5 - drawn.difference[0] > spread * 20 / 16
    assert found.verdict == "above"
    worse = kept_estimate([*[True] * 4, *[False] * 16], dense, untouched, random, Key("x"))
    assert worse.verdict == "not settled"
    assert kept_estimate(cut, [False] * 20, untouched, random, Key("x")) is None


def test_few_successes_of_the_dense_adapter_say_nothing_of_what_is_kept():
    dense, cut = [True] * 7 + [False] * 13, [True] * 7 + [False] * 13
    found = kept_estimate(cut, dense, [False] * 20, [[False] * 20] * 3, Key("x"))
    assert (found.value, found.verdict) == (1.0, "no verdict")


def everything(supports, n):
    return {side: dict.fromkeys(by_seed, range(n)) for side, by_seed in supports.items()}


def test_overlap_by_hand_against_the_hypergeometric():
    supports = {READ: {0: {1, 2, 3, 4}, 1: {3, 4, 5, 6}, 2: {4, 7, 8, 9}}, WRITTEN: {0: {1}}}
    (found,) = overlap_estimates(supports, everything(supports, 20), Key("x"))
    # Pairs share 2, 1 and 1 of 4; two random fours of 20 share 4 · 4/20.
    assert found.value == pytest.approx((2 + 1 + 1) / 3 / 4)
    assert found.chance == pytest.approx(4 / 20)
    assert found.key.dictionary == READ
    assert found.n == 4
    same = {READ: {seed: {1, 2} for seed in range(3)}}
    (alike,) = overlap_estimates(same, everything(same, 1000), Key("x"))
    assert (alike.value, alike.verdict) == (1.0, "above")
    # Sets of different sizes: of the smaller one.
    nested = {READ: {0: {1}, 1: {1, 2, 3}}}
    (one,) = overlap_estimates(nested, everything(nested, 10), Key("x"))
    assert one.value == 1.0
    assert one.chance == pytest.approx(3 / 10)
    # Of one pair the null's bounds are the hypergeometric law's.
    pair = {READ: {0: set(range(30)), 1: set(range(20, 50))}}
    (two,) = overlap_estimates(pair, everything(pair, 200), Key("x"))
    law = stats.hypergeom(200, 30, 30)
    null = two.nulls[0]
    assert (30 * null.low, 30 * null.high) == pytest.approx(law.ppf([0.025, 0.975]), abs=1.01)
    assert null.p == pytest.approx(2 * law.sf(9), rel=0.6)


def test_what_was_preselected_is_what_choices_are_drawn_from():
    # 128 candidates of 512 under every seed, 32 chosen of them.
    candidates = {READ: dict.fromkeys((0, 1), range(0, 512, 4))}
    random, verdicts = np.random.default_rng(0), []
    for repeat in range(80):
        sets = {
            seed: set(random.choice(candidates[READ][seed], 32, replace=False).tolist())
            for seed in (0, 1)
        }
        (found,) = overlap_estimates({READ: sets}, candidates, Key("x"), seed=repeat)
        assert found.chance == pytest.approx(0.25)
        verdicts.append(found.verdict)
    # 5 % on both sides together, at most: the counts are whole.
    assert sum(verdict in ("above", "below") for verdict in verdicts) <= 9
    # Candidates that differ: half of each are shared.
    apart = {READ: {0: range(128), 1: range(64, 192)}}
    (found,) = overlap_estimates({READ: sets}, apart, Key("x"))
    assert found.chance == pytest.approx(64 * (32 / 128) ** 2 / 32)


def test_means_over_seeds():
    def one(seed, value, level):
        chance = Null("null", level, level - 0.1, level + 0.1, True, (0.1, 0.5))
        return Estimate("m", value, (0.2, 0.9), 50, "share", (chance,), Key("x", seed=seed))

    three = [one(0, 0.5, 0.1), one(1, 0.7, 0.2), one(2, 0.6, 0.3)]
    (mean,) = over_seeds(three)
    assert mean.value == pytest.approx(0.6)
    # What the prompts leave open, 0.4 below and 0.3 above, does not shrink with seeds.
    ends = pooled_interval([0.5, 0.7, 0.6], (0.4, 0.3))
    assert ends[0] < 0.6 - 0.4
    assert mean.interval == pytest.approx(ends)
    assert (mean.chance, mean.nulls[0].low, mean.nulls[0].high) == pytest.approx((0.2, 0, 0.4))
    # Gaps of 0.4, 0.5 and 0.3; each seed's own difference goes from 0.1 to 0.5.
    apart = pooled_interval([0.4, 0.5, 0.3], (0.3, 0.1))
    assert mean.difference(mean.nulls[0]) == pytest.approx(apart)
    assert (mean.key.seed, mean.n) == (None, 50)
    unknown = replace(three[0], interval=(math.nan, math.nan))
    assert math.isnan(over_seeds([unknown, three[1]])[0].interval[0])
    assert over_seeds([one(0, 0.5, 0.1)]) == []
