"""Density and dead latents by hand, beside a null that can be worked out."""

import math

import pytest
import scipy.stats
import torch

from lorascope.measures import firing as firing_module
from lorascope.measures.definitions import definition
from lorascope.measures.firing import firing, firing_estimates
from lorascope.results import Key

PLACE = Key(adapter="r4", site="layers.1", seed=0, dictionary="delta")
ROWS = torch.tensor([[2.0, 0.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 0.5], [0.0, 5.0, 0.0]])
DOCUMENTS = torch.tensor([0, 0, 1, 2])


def test_firing_by_hand(threshold_dictionary):
    found = firing(threshold_dictionary(3), ROWS)
    assert found.per_row.tolist() == [1.0, 2.0, 0.0, 1.0]
    assert found.per_latent.tolist() == [2, 2, 0]
    assert found.alive.tolist() == [True, True, False]


def test_estimates_by_hand(threshold_dictionary):
    dictionary = threshold_dictionary(3)
    density, dead = firing_estimates(dictionary, firing(dictionary, ROWS), ROWS, DOCUMENTS, PLACE)
    assert (density.measure, dead.measure) == ("density", "dead_share")
    assert density.value == 1.0
    assert dead.value == pytest.approx(1 / 3)
    assert (density.n, dead.n) == (4, 3)
    wilson = scipy.stats.binomtest(1, 3).proportion_ci(method="wilson")
    assert dead.interval == pytest.approx((wilson.low, wilson.high))
    # Three documents leave no interval.
    assert all(math.isnan(bound) for bound in density.interval)
    for estimate in (density, dead):
        assert estimate.unit == definition(estimate.measure).unit
        assert [c.name for c in estimate.nulls] == ["norm-matched random"]


def test_random_rows_fire_as_often_as_they_must(threshold_dictionary):
    # A coordinate of a random vector of norm r in three dimensions is uniform on [−r, r], so it
    # exceeds 1 with probability (r − 1)/2r.
    norms = [2.0, 13**0.5, 0.5, 5.0]
    expected = 3 * sum(max(0.0, (r - 1) / (2 * r)) for r in norms) / 4
    rows, dictionary = ROWS.repeat(500, 1), threshold_dictionary(3)
    documents = torch.arange(2000) // 4
    density, dead = firing_estimates(dictionary, firing(dictionary, rows), rows, documents, PLACE)
    assert density.chance == pytest.approx(expected, abs=0.02)
    assert density.nulls[0].low < expected < density.nulls[0].high
    assert density.verdict == "above"
    assert dead.chance == 0.0
    again, _ = firing_estimates(dictionary, firing(dictionary, rows), rows, documents, PLACE)
    other, _ = firing_estimates(dictionary, firing(dictionary, rows), rows, documents, PLACE, 1)
    assert again == density
    assert other.nulls != density.nulls
    assert other.value == density.value


def test_dead_latents_are_counted_on_as_many_rows_as_their_null(threshold_dictionary, monkeypatch):
    monkeypatch.setattr(firing_module, "NULL_ROWS", 2)
    dictionary = threshold_dictionary(3)
    rows = torch.tensor([[2.0, 0.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 9.0]])
    found = firing(dictionary, rows)
    assert found.alive.all()
    density, dead = firing_estimates(dictionary, found, rows, DOCUMENTS, PLACE)
    assert dead.value == pytest.approx(1 / 3)
    assert density.value == 1.25
