"""Base latents that drift, by hand and by planted truth."""

import numpy as np
import pytest
import torch
from scipy import special

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.measures.drift import (
    DriftFiring,
    _inverse_trigamma,
    _prior,
    drift,
    firing,
    null_drifts,
)


def test_firing_by_hand():
    directions = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    dictionary = ReluDictionary(torch.eye(2), torch.zeros(2), directions, torch.zeros(2))
    base = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 2.0]])
    delta = torch.tensor([[0.0, 2.0], [-2.0, 0.0], [0.0, 1.0]])
    found = firing(dictionary, base, delta)
    assert found.before.tolist() == [2, 2]
    assert found.after.tolist() == [1, 3]
    assert found.switched.tolist() == [1, 1]
    assert found.energy_before.tolist() == [8, 5]
    assert found.energy_after.tolist() == [4, 1 + 1 + 9]
    assert found.moved.tolist() == [4, 1 + 1]
    assert (found.tokens, found.delta) == (3, 4 + 4 + 1)


def counted(random, latents=400, drifting=(), size=1.0):
    """Counts of latents that fire on about 200 tokens, as a null adapter changes them."""
    before = np.full(latents, 200.0)
    change = np.round(10 * size * random.standard_normal(latents))
    change[list(drifting)] += 120
    switched = np.abs(change) + random.poisson(10, latents)
    ones = np.ones(latents)
    return DriftFiring(before, before + change, switched, ones, ones, ones, 5000, 2.0 * latents)


def test_planted_drifts_are_found_and_share_the_delta():
    random = np.random.default_rng(0)
    nulls = [counted(random) for _ in range(4)]
    planted = (3, 50, 200)
    found = drift(counted(random, drifting=planted), nulls)
    assert set(planted) <= set(np.flatnonzero(found.q <= 0.05))
    assert (found.q <= 0.05).sum() <= 5
    assert found.share[3] == pytest.approx(1 / 800)
    assert found.change[3] > 5
    assert set(found.leading(40, 0.05)) == set(np.flatnonzero(found.q <= 0.05))


def test_one_more_null_adapter_drifts_seldom():
    counts = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        nulls = [counted(random) for _ in range(4)]
        counts += null_drifts(nulls, 0.05)
    assert np.mean(np.array(counts) > 0) <= 0.15
    assert np.mean(counts) < 1


def test_seldom_latents_and_few_nulls_have_no_verdict():
    random = np.random.default_rng(1)
    own, nulls = counted(random), [counted(random) for _ in range(3)]
    own.before[0] = own.after[0] = 2.0
    found = drift(own, nulls)
    assert np.isnan(found.change[0])
    assert np.isnan(found.q[0])
    assert np.isfinite(found.q[1:]).all()
    assert np.isnan(drift(own, nulls[:1]).q).all()
    assert np.isnan(drift(own, []).q).all()
    assert null_drifts(nulls[:2], 0.05) == []


def test_common_spread_by_smyths_moments():
    for value in (0.01, 0.5, 3.0, 40.0):
        x = _inverse_trigamma(value)
        assert float(special.polygamma(1, x)) == pytest.approx(value, rel=1e-6)
    random = np.random.default_rng(2)
    true = 8 * 0.5 / random.chisquare(8, 20000)
    variance = true * random.chisquare(3, 20000) / 3
    degrees, prior = _prior(variance, 3)
    assert degrees == pytest.approx(8, rel=0.15)
    assert prior == pytest.approx(0.5, rel=0.05)
