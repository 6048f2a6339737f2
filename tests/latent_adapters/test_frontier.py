"""Numbers of adapters over seeds, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.flatness import effective_number, over_uniform
from lorascope.latent_adapters.frontier import (
    READ,
    WRITTEN,
    kept_estimate,
    over_seeds,
    overlap_estimates,
    sparsity_estimates,
)
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
        assert found["latent.effective", side].verdict in ("equal", "not settled")
    small = sparsity_estimates(adapter.cut(3, 5), Key("x"))
    found = {(e.measure, e.key.dictionary): e for e in small}
    assert [found["latent.used", side].value for side in (READ, WRITTEN)] == [
        len(ids) for ids in adapter.cut(3, 5).support()
    ]
    assert found["latent.effective", READ].verdict == "below"
    assert found["latent.largest", READ].verdict == "above"


def test_the_share_kept_is_over_the_dense_adapter_s():
    dense = [True] * 8 + [False] * 2
    cut = [True] * 6 + [False] * 4
    controls = {"random latents": [True] * 2 + [False] * 8, "untouched model": [False] * 10}
    found = kept_estimate(cut, dense, controls, Key("x", setting="m=4"))
    assert found.value == pytest.approx(6 / 8)
    assert found.interval[0] < 0.75 < found.interval[1]
    assert [(c.name, c.level) for c in found.nulls] == [
        ("random latents", 2 / 8),
        ("untouched model", 0.0),
    ]
    assert kept_estimate(cut, [False] * 10, controls, Key("x")) is None


def test_overlap_by_hand_against_the_hypergeometric():
    supports = {READ: {0: {1, 2, 3, 4}, 1: {3, 4, 5, 6}, 2: {4, 7, 8, 9}}, WRITTEN: {0: {1}}}
    (found,) = overlap_estimates(supports, 20, Key("x"))
    # Pairs share 2, 1 and 1 of 4; two random fours of 20 share 4 · 4/20.
    assert found.value == pytest.approx((2 + 1 + 1) / 3 / 4)
    assert found.chance == pytest.approx(4 / 20)
    assert found.key.dictionary == READ
    assert found.n == 4
    same = overlap_estimates({READ: {0: {1, 2}, 1: {1, 2}, 2: {1, 2}}}, 1000, Key("x"))[0]
    assert (same.value, same.verdict) == (1.0, "above")
    # Sets of different sizes: of the smaller one.
    nested = overlap_estimates({READ: {0: {1}, 1: {1, 2, 3}}}, 10, Key("x"))[0]
    assert nested.value == 1.0
    assert nested.chance == pytest.approx(3 / 10)


def test_means_over_seeds():
    def one(seed, value, level):
        chance = Null("null", level, level - 0.1, level + 0.1)
        return Estimate("m", value, (0, 1), 50, "share", (chance,), Key("x", seed=seed))

    (mean,) = over_seeds([one(0, 0.5, 0.1), one(1, 0.7, 0.2), one(2, 0.6, 0.3)])
    assert mean.value == pytest.approx(0.6)
    # Over prompts 0 to 1 each, 0.6 below and 0.4 above on average; between seeds 0.1² / 3.
    low, high = pooled_interval([0.5, 0.7, 0.6], (0.6, 0.4))
    assert mean.interval == (max(low, 0.0), min(high, 1.0)) == (0.0, 1.0)
    latents = [
        replace(one(i, v, 0.1), measure="latent.used") for i, v in enumerate((5.0, 7.0, 6.0))
    ]
    (mean_used,) = over_seeds([replace(e, unit="latents") for e in latents])
    half = 4.302652729911275 / math.sqrt(3)
    assert mean_used.interval == pytest.approx((6 - half, 6 + half))
    assert (mean.chance, mean.nulls[0].low, mean.nulls[0].high) == pytest.approx((0.2, 0, 0.4))
    assert (mean.key.seed, mean.n) == (None, 3)
    assert over_seeds([one(0, 0.5, 0.1)]) == []
