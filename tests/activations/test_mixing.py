"""Mixing: every row once an epoch, in an order the generator decides, in bounded memory."""

import pytest
import torch
from scipy import stats

from lorascope.activations.mixing import TensorRows, epochs, mixed
from lorascope.randomness import generator


def numbered(count):
    """Rows that carry their own number."""
    return torch.arange(count, dtype=torch.float32)[:, None].expand(count, 2).contiguous()


def numbers(batches):
    return torch.cat([batch[:, 0] for batch in batches]).int().tolist()


class CountedChunks:
    """Chunks that say how many rows have been taken from them."""

    def __init__(self, count, size):
        self.parts = numbered(count).split(size)
        self.taken = 0

    def __iter__(self):
        for part in self.parts:
            self.taken += len(part)
            yield part


@pytest.mark.parametrize(
    ("count", "chunk", "batch", "buffer"),
    [(96, 96, 8, 1000), (96, 10, 8, 32), (96, 7, 8, 16), (96, 5, 8, 1), (96, 32, 96, 96)],
)
def test_every_row_comes_out_once(count, chunk, batch, buffer):
    made = list(mixed(numbered(count).split(chunk), batch, buffer, generator(0)))
    assert all(len(rows) == batch for rows in made)
    order = numbers(made)
    assert sorted(order) == list(range(count))
    assert order != list(range(count))


def test_only_what_does_not_fill_a_batch_is_left_over():
    order = numbers(mixed(numbered(101).split(13), 8, 24, generator(0)))
    assert len(order) == 96
    assert len(set(order)) == 96
    assert list(mixed(numbered(7).split(2), 8, 24, generator(0))) == []
    assert list(mixed([], 8, 24, generator(0))) == []


def test_the_buffer_is_bounded():
    chunks = CountedChunks(1000, 10)
    handed_out = 0
    for batch in mixed(chunks, 8, 64, generator(0)):
        # what is waiting, before this batch went: the buffer and at most one chunk beyond it
        assert chunks.taken - handed_out <= 64 + 10
        handed_out += len(batch)
    assert handed_out == 1000


def test_where_all_fits_the_order_is_a_uniform_permutation():
    places = torch.zeros(5, 5)
    for seed in range(2000):
        order = numbers(mixed(numbered(5).split(2), 1, 100, generator(seed)))
        places[torch.arange(5), torch.tensor(order)] += 1
    assert stats.chisquare(places.flatten()).pvalue > 1e-3


def test_rows_move_far_from_their_neighbours():
    order = torch.tensor(numbers(mixed(numbered(4096).split(64), 16, 1024, generator(0))))
    gaps = (order[1:] - order[:-1]).abs().float()
    assert gaps.median() > 100
    # and not only within the buffer they came in with
    assert order[:1024].max() > 1024
    assert order[1024:].min() < 1024


def test_epochs_differ_from_one_another_and_repeat_by_seed():
    def three_epochs(seed):
        batches = epochs(TensorRows(numbered(64)), 16, generator(seed), buffer=64)
        return [[next(batches) for _ in range(4)] for _ in range(3)]

    first = [numbers(epoch) for epoch in three_epochs(0)]
    assert all(sorted(order) == list(range(64)) for order in first)
    assert first[0] != first[1] != first[2]
    assert [numbers(epoch) for epoch in three_epochs(0)] == first
    assert numbers(three_epochs(1)[0]) != first[0]


def test_each_epoch_reads_the_chunks_in_a_new_order():
    orders = []

    class Recorded(TensorRows):
        n_chunks = 8

        def chunks(self, order=None):
            orders.append(list(order))
            parts = self.rows.split(8)
            return iter([parts[i] for i in order])

    batches = epochs(Recorded(numbered(64)), 16, generator(0))
    for _ in range(12):
        next(batches)
    assert len(orders) == 3
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="7 rows do not fill one batch of 8"):
        next(epochs(TensorRows(numbered(7)), 8, generator(0)))
