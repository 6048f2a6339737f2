"""Latents one by one: by hand, planted, and against independent counting."""

import math

import pytest
import torch

from lorascope.activations.batch import TokenRows
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.measures import features
from lorascope.measures.features import (
    STRONGEST,
    activity,
    chosen_rows,
    examples,
    statistics,
    stretches,
)
from lorascope.randomness import generator

# Latent i fires on x_i > 1 and its activation is the excess.
ROWS = torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.5, 0.0], [9.0, 0.0, 0.5]])


def random(name="test"):
    return generator(0, name)


def test_activations_by_hand(threshold_dictionary):
    found = activity(threshold_dictionary(3), ROWS)
    assert found.rows == 4
    assert found.counts.tolist() == [2, 2, 0]
    assert [part.tolist() for part in found.of(0)] == [[0, 3], [2.0, 8.0]]
    assert [part.tolist() for part in found.of(1)] == [[1, 2], [1.0, 0.5]]


def test_statistics_by_hand(threshold_dictionary):
    found = activity(threshold_dictionary(3), ROWS)
    kind = torch.tensor([0, 1, 1, 1])
    sums = statistics(found, torch.tensor([2.0, 4.0, 1.0]), torch.arange(4), kind, 2)
    assert sums.density.tolist() == [0.5, 0.5, 0.0]
    assert sums.mean[:2].tolist() == [5.0, 0.75]
    assert math.isnan(sums.mean[2])
    assert sums.strength[:2].tolist() == [10.0, 3.0]
    assert sums.written.tolist() == [5.0, 1.5, 0.0]
    assert sums.maximum.tolist() == [8.0, 1.0, 0.0]
    # 2 of at most 8 in 16 bins is the fifth; the largest belongs to the last.
    assert sums.histogram[0].nonzero().flatten().tolist() == [4, 15]
    assert sums.histogram.sum(1).tolist() == [2, 2, 0]
    assert sums.kinds[:2].tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_intervals_are_over_documents():
    """As standard errors computed from every document's sums, silent documents included."""
    drawn = random("intervals")
    documents = torch.randint(0, 30, (600,), generator=drawn).sort().values
    level = torch.randn(30, 4, generator=drawn)[documents]
    rows = level + torch.randn(600, 4, generator=drawn) - 0.5
    dictionary = ReluDictionary(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4))
    found = activity(dictionary, rows)
    sums = statistics(found, torch.ones(4), documents, torch.zeros(600, dtype=torch.long), 1)
    z, names = rows.clamp(min=0).double(), documents.unique()
    active = (z > 0).double()
    for value, low, high, above, below in (
        (sums.density, sums.density_low, sums.density_high, active, torch.ones_like(z)),
        (sums.mean, sums.mean_low, sums.mean_high, z, active),
    ):
        ratio = above.sum(0) / below.sum(0)
        left = torch.stack([(above - ratio * below)[documents == d].sum(0) for d in names])
        error = (left.square().sum(0) * len(names) / (len(names) - 1)).sqrt() / below.sum(0)
        torch.testing.assert_close(value, ratio)
        torch.testing.assert_close(high - low, 2 * 1.96 * error)
        torch.testing.assert_close(value - low, high - value)


def test_latents_fire_on_random_vectors_by_chance():
    # Half the sphere is on one side of a plane; none of it beyond the largest norm.
    dictionary = ReluDictionary(
        torch.eye(3), torch.tensor([0.0, -1.1, 9.0]), torch.eye(3), torch.zeros(3)
    )
    rows = isotropic(3000, 3, random("rows"))
    share = features.fired_by_chance(dictionary, rows, random("drawn"))
    assert share.tolist() == pytest.approx([0.5, 0.0, 1.0], abs=0.03)


def test_pieces_give_what_one_pass_gives(monkeypatch):
    drawn = random()
    encoder, rows = torch.randn(6, 40, generator=drawn), torch.randn(97, 6, generator=drawn)
    dictionary = ReluDictionary(encoder, torch.zeros(40), encoder.T, torch.zeros(6))
    monkeypatch.setattr(features, "_BLOCK", 7 * 40)
    found = activity(dictionary, rows)
    z = dictionary.encode(rows)
    for latent in range(40):
        where, values = found.of(latent)
        assert where.tolist() == z[:, latent].nonzero().flatten().tolist()
        torch.testing.assert_close(values, z[where.long(), latent])


def test_activations_are_bounded_at_a_piece_of_rows(monkeypatch, threshold_dictionary):
    monkeypatch.setattr(features, "_BLOCK", 3 * 2)
    found = activity(threshold_dictionary(3), torch.full((10, 3), 2.0), most=17)
    assert found.rows == 4
    assert found.counts.tolist() == [4, 4, 4]


def test_a_dictionary_that_never_fires_has_no_activations(threshold_dictionary):
    found = activity(threshold_dictionary(3), torch.zeros(5, 3))
    sums = statistics(found, torch.ones(3), torch.arange(5), torch.zeros(5, dtype=torch.long), 1)
    assert found.rows == 5
    assert sums.written.tolist() == [0.0, 0.0, 0.0]


def origin(documents, positions):
    rows = len(documents)
    return TokenRows(
        torch.tensor(documents),
        torch.tensor(positions),
        torch.zeros(rows, dtype=torch.long),
        torch.zeros(rows, dtype=torch.bool),
    )


def test_stretches_end_with_documents_and_where_positions_begin_anew():
    rows = origin([4, 4, 2, 2, 2, 2, 2], [1, 3, 4, 5, 1, 1, 2])
    assert stretches(rows).tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_rows_are_chosen_as_whole_stretches():
    stretch = torch.arange(30).repeat_interleave(5)
    chosen = chosen_rows(stretch, 42, random())
    assert len(chosen) == 40
    assert chosen.view(8, 5).diff(dim=1).eq(1).all()
    assert len(stretch[chosen].unique()) == 8
    assert stretch[chosen].unique().tolist() != list(range(8))
    assert sorted(chosen_rows(stretch, 1000, random()).tolist()) == list(range(150))
    assert len(chosen_rows(stretch, 3, random())) == 3


def test_examples_are_the_strongest_of_different_documents_then_of_every_band():
    rows = torch.cat([torch.arange(1, 101.0), torch.zeros(20)])[:, None]
    dictionary = ReluDictionary(torch.eye(1), torch.zeros(1), torch.eye(1), torch.zeros(1))
    # Rows 98 and 99, the two strongest, are of one document.
    documents = torch.arange(120)
    documents[98] = 99
    found = examples(activity(dictionary, rows), 0, documents, 3, 4, random())
    assert [e.row for e in found if e.band == STRONGEST] == [99, 97, 96]
    assert [e.value for e in found if e.band == STRONGEST] == [100.0, 98.0, 97.0]
    for band, low, high in (
        ("upper quarter", 75, 100),
        ("middle half", 25, 75),
        ("lower quarter", 0, 25),
    ):
        values = [e.value for e in found if e.band == band]
        assert len(values) == 4
        assert values == sorted(values, reverse=True)
        assert all(low < value <= high for value in values)
    assert len({e.row for e in found}) == len(found) == 15


def test_a_latent_of_one_activation_has_one_example():
    dictionary = ReluDictionary(torch.eye(1), torch.zeros(1), torch.eye(1), torch.zeros(1))
    found = activity(dictionary, torch.tensor([[0.0], [2.0], [0.0]]))
    assert [e.row for e in examples(found, 0, torch.arange(3), 4, 2, random())] == [1]
