"""Relative errors by hand, and nulls against what they should come to."""

import math

import numpy as np
import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.measures.definitions import definition
from lorascope.measures.reconstruction import (
    Errors,
    difference_errors,
    error_estimates,
    errors,
    improvement,
    null_errors,
)
from lorascope.measures.rows import HeldOut
from lorascope.randomness import generator
from lorascope.results import Key

PLACE = Key(adapter="r4", site="layers.1", seed=0, dictionary="base")
ROWS = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0], [6.0, 8.0]])
DOCUMENTS = torch.tensor([0, 0, 1, 2])


def second_axis_only(x):
    return x * torch.tensor([0.0, 1.0])


def with_relative(*values):
    """Errors of rows of norm 1, each in a document of its own."""
    residuals = torch.tensor(values)
    return Errors(torch.ones(len(values)), residuals, torch.arange(len(values)))


def test_relative_error_and_frobenius_by_hand():
    found = errors(second_axis_only, ROWS, DOCUMENTS)
    assert found.residuals.tolist() == [3.0, 0.0, 0.0, 6.0]
    # 3/5, 0/2, a zero row predicted as zero, 6/10
    assert found.relative.tolist() == pytest.approx([0.6, 0.0, 0.0, 0.6])
    assert found.mean == pytest.approx(0.3)
    assert found.frobenius == pytest.approx(math.sqrt((9 + 36) / (25 + 4 + 100)))


def test_a_zero_row_counts_as_wrong_where_something_is_predicted():
    found = errors(lambda x: torch.tensor([0.0, 2.0]).expand_as(x), ROWS, DOCUMENTS)
    # (3, 2) of 5, (0, 0) of 2, (0, −2) of nothing, (6, 6) of 10
    expected = [math.sqrt(13) / 5, 0.0, 1.0, math.sqrt(72) / 10]
    assert found.relative.tolist() == pytest.approx(expected)


def test_base_difference_by_hand(threshold_dictionary):
    dictionary = threshold_dictionary(2, bias=[0.5, 0.0])
    rows = HeldOut(torch.tensor([[2.5, 0.5]]), torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    # G(2.5, 0.5) = (1, 0) + b and G(3.5, 2.5) = (2, 1.5) + b: their difference is (1, 1.5).
    found = difference_errors(dictionary, rows)
    assert found.residuals.item() == pytest.approx(0.5)
    assert found.mean == pytest.approx(0.5 / math.sqrt(5))
    # Asked about the delta itself: (1, 2) − b = (0.5, 2) → (0, 1) + b = (0.5, 1).
    direct = errors(dictionary, rows.delta, rows.documents)
    assert direct.residuals.item() == pytest.approx(math.hypot(0.5, 1.0))


def test_intervals_contain_the_value_and_close_where_documents_agree():
    random = torch.rand(60, generator=generator(0, "residuals"))
    found = Errors(1 + torch.arange(60) / 30, random, torch.arange(60) // 3)
    estimates = error_estimates(found, [], PLACE)
    assert [e.value for e in estimates] == [found.mean, found.frobenius]
    for estimate in estimates:
        low, high = estimate.interval
        assert low < estimate.value < high < estimate.value + 0.2
    same = Errors(torch.full((8,), 2.0), torch.full((8,), 0.5), torch.arange(8))
    assert all(e.interval == (0.25, 0.25) for e in error_estimates(same, [], PLACE))


def test_interval_is_the_jackknife_over_documents():
    relative = torch.rand(40, generator=generator(1, "relative"))
    documents = torch.arange(40) // 4
    found = Errors(torch.ones(40), relative, documents)
    means = relative.double().numpy().reshape(10, 4).mean(1)
    logs = np.log((means.sum() - means) / 9)
    half = 2.2621571628 * np.sqrt(0.9 * ((logs - logs.mean()) ** 2).sum())
    low, high = error_estimates(found, [], PLACE)[0].interval
    assert (low, high) == pytest.approx((means.mean() * np.exp(-half), means.mean() * np.exp(half)))


@pytest.fixture
def planted(threshold_dictionary):
    """A dictionary, and 600 rows it reconstructs better than random ones of the same norms."""
    random = generator(0, "planted")
    delta = 3 * torch.eye(3)[torch.randint(3, (600,), generator=random)]
    delta = delta + 0.3 * torch.randn(600, 3, generator=random)
    base = torch.randn(600, 3, generator=random)
    return threshold_dictionary(3, [0.2, 0.0, 0.0]), HeldOut(base, delta, torch.arange(600) // 6)


def test_nulls_by_name_and_the_headline_first(planted):
    dictionary, rows = planted
    mean = torch.tensor([0.5, 0.0, -0.5])
    nulls = null_errors(dictionary, rows, mean, seed=0)
    assert [name for name, _ in nulls] == [
        "norm-matched random",
        "zero predictor",
        "mean of the training deltas",
        "decoder bias alone",
    ]
    found = errors(dictionary, rows.delta, rows.documents)
    estimates = error_estimates(found, nulls, PLACE)
    for estimate in estimates:
        assert estimate.unit == definition(estimate.measure).unit
        assert estimate.nulls[0].name == "norm-matched random"
        assert estimate.verdict == "below"
        assert estimate.nulls[1].level == 1.0
        assert estimate.n == 600
    levels = {chance.name: chance.level for chance in estimates[0].nulls}
    norms = rows.delta.norm(dim=1)
    away = (rows.delta - mean).norm(dim=1) / norms
    assert levels["mean of the training deltas"] == pytest.approx(away.mean().item(), rel=1e-5)
    away = (rows.delta - torch.tensor([0.2, 0.0, 0.0])).norm(dim=1) / norms
    assert levels["decoder bias alone"] == pytest.approx(away.mean().item(), rel=1e-5)


def test_norm_matched_level_is_that_of_other_random_directions(planted):
    dictionary, rows = planted
    nulls = null_errors(dictionary, rows, torch.zeros(3), seed=0)
    headline = error_estimates(errors(dictionary, rows.delta, rows.documents), nulls, PLACE)[0]
    normal = np.random.default_rng(5).normal(size=(600 * 20, 3))
    x = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    x *= np.tile(rows.delta.norm(dim=1).numpy(), 20)[:, None]
    bias = np.array([0.2, 0.0, 0.0])
    rebuilt = np.maximum(x - bias - 1.0, 0.0) + bias
    expected = (np.linalg.norm(x - rebuilt, axis=1) / np.linalg.norm(x, axis=1)).mean()
    assert headline.chance == pytest.approx(expected, abs=0.01)
    assert headline.nulls[0].low < expected < headline.nulls[0].high


def test_nulls_depend_on_the_seed_alone(planted):
    dictionary, rows = planted

    def levels(seed):
        return [e.mean for e in null_errors(dictionary, rows, torch.zeros(3), seed)[0][1]]

    torch.manual_seed(1)
    first = levels(0)
    torch.manual_seed(2)
    assert levels(0) == first
    assert set(levels(1)).isdisjoint(first)
    assert len(set(first)) == len(first)


def some_rows(n):
    return HeldOut(torch.zeros(n, 2), torch.ones(n, 2), torch.arange(n))


def test_improvement_by_hand(threshold_dictionary):
    base, learned = with_relative(0.9, 0.7, 0.8, 0.8), with_relative(0.5, 0.7, 0.6, 0.6)
    gaussian = with_relative(0.7, 0.7, 0.6, 0.8)
    dictionary, rows = threshold_dictionary(2), some_rows(4)
    found = improvement(base, learned, dictionary, {"trained": gaussian}, rows, PLACE)
    assert found.value == pytest.approx(1 - 0.6 / 0.8)
    assert all(bound != bound for bound in found.interval)
    assert [c.name for c in found.nulls] == ["trained", "rotated"]
    assert found.chance == pytest.approx(1 - 0.7 / 0.8)
    assert (found.unit, found.key.dictionary) == ("share", "delta")
    alone = improvement(base, learned, dictionary, {}, rows, PLACE)
    assert [c.name for c in alone.nulls] == ["rotated"]


def test_rotation_takes_the_improvement_away():
    # One latent a sign of the first axis of 40: exact on deltas along it. Turned, it reads a
    # random direction u and leaves √(1 − u₁²) of them, 1 − 1/80 in the mean.
    axis = torch.eye(40)[:1]
    directions = torch.cat([axis, -axis])
    dictionary = ReluDictionary(directions.T, torch.zeros(2), directions, torch.zeros(40))
    scale = torch.linspace(-2, 3, 50)[:, None]
    rows = HeldOut(torch.zeros(50, 40), scale * axis, torch.arange(50))
    learned = errors(dictionary, rows.delta, rows.documents)
    nothing = errors(torch.zeros_like, rows.delta, rows.documents)
    found = improvement(nothing, learned, dictionary, {}, rows, PLACE)
    assert found.value == 1.0
    assert 0.0 < found.chance < 0.06
    assert found.verdict == "above"
