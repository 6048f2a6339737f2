"""Overlap by hand, with rows where nothing fires, and its two nulls."""

import math

import pytest
import torch

from lorascope.measures.definitions import definition
from lorascope.measures.overlap import active, expected, overlap_estimates, shared
from lorascope.measures.rows import HeldOut
from lorascope.randomness import generator
from lorascope.results import Key

PLACE = Key(adapter="r4", site="layers.1", seed=0)
ON_DELTA = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]]).bool()
ON_BASE = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]]).bool()


def rows_that_fire(on_delta, on_base, documents):
    """Rows on which exactly these latents of a threshold dictionary fire."""
    return HeldOut(2.0 * on_base, 3.0 * on_delta, torch.tensor(documents))


def test_shares_by_hand():
    found = shared(ON_DELTA, ON_BASE).tolist()
    assert found[0] == 0.5  # latents 0 and 1, of which 0 is on
    assert math.isnan(found[1])
    assert found[2:] == [1.0, 0.0]
    # The base fires latent 0 on half of the rows, 1 and 2 on three quarters.
    independent = expected(ON_DELTA, ON_BASE).tolist()
    assert independent[0] == pytest.approx((0.5 + 0.75) / 2)
    assert math.isnan(independent[1])
    assert independent[2:] == pytest.approx([0.75, 0.5])


def test_estimates_by_hand(threshold_dictionary):
    dictionary = threshold_dictionary(3)
    rows = rows_that_fire(ON_DELTA, ON_BASE, [0, 1, 2, 3])
    assert torch.equal(active(dictionary, rows.delta), ON_DELTA)
    overlap, weak = overlap_estimates(dictionary, rows, PLACE)
    assert (overlap.measure, weak.measure) == ("overlap", "weakly_aligned")
    assert overlap.value == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert overlap.n == 3  # the row where nothing fires is no part of it
    assert [c.name for c in overlap.nulls] == ["independence", "rows shifted"]
    assert overlap.chance == pytest.approx((0.625 + 0.75 + 0.5) / 3)
    assert overlap.key.dictionary == "base"
    assert all(math.isnan(bound) for bound in overlap.interval)
    more = rows_that_fire(ON_DELTA.repeat(3, 1), ON_BASE.repeat(3, 1), list(range(12)))
    (low, high), turned = (e.interval for e in overlap_estimates(dictionary, more, PLACE))
    assert 0 < low < overlap.value < high < 1
    assert weak.value == pytest.approx(1 - overlap.value)
    assert turned == pytest.approx((1 - high, 1 - low))
    for one, other in zip(overlap.nulls, weak.nulls, strict=True):
        assert (other.name, other.level) == (one.name, pytest.approx(1 - one.level))
        assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low))
    assert overlap.unit == weak.unit == definition("overlap").unit


def test_nothing_that_fires_gives_no_number(threshold_dictionary):
    rows = rows_that_fire(torch.zeros(4, 3).bool(), ON_BASE, [0, 1, 2, 3])
    assert overlap_estimates(threshold_dictionary(3), rows, PLACE) == []


def test_rows_are_shifted_past_the_longest_document_only(threshold_dictionary):
    # Six of eleven rows are one document; only its first fires. No shift leaves it.
    on_delta = torch.zeros(11, 3).bool()
    on_delta[[0, 6, 7, 8, 9, 10], 0] = True
    rows = rows_that_fire(on_delta, on_delta, [0] * 6 + [1, 2, 3, 4, 5])
    overlap, _ = overlap_estimates(threshold_dictionary(3), rows, PLACE)
    assert [c.name for c in overlap.nulls] == ["independence"]


def test_nulls_of_latents_that_fire_together_and_apart(threshold_dictionary):
    random = generator(0, "fires")
    on_base = torch.rand(400, 3, generator=random) < torch.tensor([0.2, 0.5, 0.7])
    apart = torch.rand(400, 3, generator=random) < 0.4
    documents = (torch.arange(400) // 5).tolist()
    dictionary = threshold_dictionary(3)
    same, _ = overlap_estimates(dictionary, rows_that_fire(on_base, on_base, documents), PLACE)
    none, _ = overlap_estimates(dictionary, rows_that_fire(apart, on_base, documents), PLACE)
    assert same.value == 1.0
    assert same.verdict == "above"
    assert not none.apart
    for found in (same, none):
        independence, moved = found.nulls
        assert moved.level == pytest.approx(independence.level, abs=0.04)
        assert (found.against(moved) == "above") == found.apart
    assert none.chance == pytest.approx((0.2 + 0.5 + 0.7) / 3, abs=0.03)
    again, _ = overlap_estimates(dictionary, rows_that_fire(apart, on_base, documents), PLACE)
    assert again == none
