"""The geometry's chance levels are where chance is, and what is planted stands out from them."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from lorascope.geometry.chance import isotropic, random_subspace
from lorascope.geometry.cosine import max_cosine
from lorascope.geometry.subspaces import principal_angles
from lorascope.measures.alignment import (
    NullSettings,
    angle_estimates,
    max_cosine_estimates,
)
from lorascope.measures.cka import cka_estimates
from lorascope.randomness import generator
from lorascope.results import Key

REPEATS = 40
NULLS = NullSettings(repeats=10)
N, M, D = 256, 384, 48


def dictionaries(trial):
    random = generator(trial, "dictionaries")
    return isotropic(N, D, random), isotropic(M, D, random)


def skewed(trial):
    """Two sets of Gaussian directions of the same steep covariance, and that covariance."""
    scale = torch.logspace(0, -1, D)
    first, second = (x * scale for x in dictionaries(trial))
    return first, second, torch.diag(scale.square())


def cosine_estimates(first, second, nulls=NULLS):
    estimates = max_cosine_estimates(first, second, nulls=nulls, place=Key())
    return {e.measure: e for e in estimates}


def angle_mean(first, second, k, nulls=NULLS):
    return angle_estimates(first, second, k=k, nulls=nulls, place=Key())[0]


def inside(estimate):
    return estimate.nulls[0].low <= estimate.value <= estimate.nulls[0].high


def test_max_cosine_of_random_dictionaries_is_at_chance():
    trials = [cosine_estimates(*dictionaries(i)) for i in range(REPEATS)]
    for measure in trials[0]:
        assert np.mean([not t[measure].apart for t in trials]) >= 0.9, measure
    assert np.mean([inside(t["max_cosine.mean"]) for t in trials]) >= 0.9


def test_max_cosine_of_dictionaries_that_share_only_a_covariance_is_at_chance():
    at_chance, isotropic_fooled = [], []
    for i in range(REPEATS):
        first, second, covariance = skewed(i)
        mean = cosine_estimates(first, second, NullSettings(covariance, repeats=10))[
            "max_cosine.mean"
        ]
        at_chance.append(not mean.apart and inside(mean))
        isotropic_fooled.append(mean.against(mean.nulls[1]) == "above")
    assert np.mean(at_chance) >= 0.9
    assert np.mean(isotropic_fooled) == 1.0


def test_a_planted_copy_of_a_twentieth_of_the_directions_is_above_chance():
    for i in range(5):
        first, second = dictionaries(i)
        copied = N // 20
        first[:copied] = second[:copied]
        found = cosine_estimates(first, second)
        assert found["max_cosine.mean"].verdict == "above"
        assert found["max_cosine.above_0.7"].verdict == "above"
        assert found["max_cosine.above_0.7"].value == pytest.approx(copied / N, abs=0.01)


def test_angles_of_random_dictionaries_are_at_chance():
    trials = [angle_mean(*dictionaries(i), k=8) for i in range(REPEATS)]
    assert np.mean([inside(t) for t in trials]) >= 0.9
    assert np.mean([not t.apart for t in trials]) >= 0.9


def test_angles_of_dictionaries_that_share_only_a_covariance_are_at_chance():
    at_chance, isotropic_fooled = [], []
    for i in range(REPEATS):
        first, second, covariance = skewed(i)
        mean = angle_mean(first, second, 8, NullSettings(covariance, repeats=10))
        at_chance.append(not mean.apart and inside(mean))
        isotropic_fooled.append(mean.against(mean.nulls[1]) == "below")
    assert np.mean(at_chance) >= 0.9
    assert np.mean(isotropic_fooled) == 1.0


def test_a_planted_common_subspace_is_below_chance():
    for i in range(5):
        first, second = dictionaries(i)
        shared = random_subspace(D, 8, generator(i, "shared")).T
        first[:80], second[:80] = (
            torch.nn.functional.normalize(torch.randn(80, 8, generator=generator(i, who)) @ shared)
            for who in ("first", "second")
        )
        assert angle_mean(first, second, k=8).verdict == "below"


def test_isotropic_max_cosine_at_a_known_size():
    random = generator(0, "reference")
    values, _ = max_cosine(isotropic(50, 768, random), isotropic(24_576, 768, random))
    # Single directions spread by about 0.009, so the mean of 50 by about 0.0013.
    assert values.mean().item() == pytest.approx(0.146, abs=0.004)


def test_random_subspaces_come_nearer_as_k_grows_as_scipy_says():
    means = []
    for k in (8, 24, 64):
        ours = principal_angles(*(random_subspace(192, k, generator(k, i)) for i in "ab"))
        rng = np.random.default_rng(k)
        theirs = scipy.linalg.subspace_angles(*(rng.standard_normal((192, k)) for _ in "ab"))
        assert ours.mean().item() == pytest.approx(np.degrees(theirs).mean(), abs=2.0)
        means.append(ours.mean().item())
    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 15


def independent_sets(n, d, trial):
    random = generator(trial, "rows")
    x, y = torch.randn(n, d, generator=random), torch.randn(n, d, generator=random)
    return x, y, torch.arange(n) // 20


def test_plain_cka_of_independent_rows_is_d_over_n_and_debiased_is_nought():
    n, d = 2000, 200
    plain, debiased = cka_estimates(
        *independent_sets(n, d, 0), "base_delta", place=Key(), repeats=10
    )
    # ‖YᵀX‖² is n d² and ‖XᵀX‖² is n d (n + d), both for centred rows: their ratio is d/(n + d).
    assert plain.value == pytest.approx(d / (n + d), rel=0.02)
    assert plain.chance == pytest.approx(d / (n + d), rel=0.02)
    assert plain.verdict in ("equal", "not settled")
    assert abs(debiased.value) < 0.003
    assert abs(debiased.chance) < 0.001


def test_debiased_cka_of_independent_rows_covers_nought():
    covers, at_chance = [], []
    for i in range(REPEATS):
        _, debiased = cka_estimates(
            *independent_sets(600, 12, i), "base_delta", place=Key(), repeats=10
        )
        covers.append(debiased.interval[0] <= 0 <= debiased.interval[1])
        at_chance.append(not debiased.apart and inside(debiased))
    assert np.mean(covers) >= 0.9
    assert np.mean(at_chance) >= 0.85


def test_debiased_cka_finds_a_weak_relation_at_its_true_size():
    n, d, share = 4000, 40, 0.2
    x, noise, documents = independent_sets(n, d, 1)
    y = math.sqrt(share) * x + math.sqrt(1 - share) * noise
    _, debiased = cka_estimates(x, y, documents, "base_delta", place=Key(), repeats=10)
    # The cross-covariance is √share · I beside two identities, and CKA is its square.
    assert debiased.value == pytest.approx(share, abs=0.01)
    assert debiased.verdict == "above"
