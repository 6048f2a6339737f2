"""Every row once an epoch, in an order of each taker, in bounded memory, from any step."""

from itertools import islice

import pytest
import torch
from scipy import stats

from lorascope.activations.mixing import Feed, TensorRows


class Chunked(TensorRows):
    """Rows in chunks that remembers which were read."""

    def __init__(self, rows, size):
        super().__init__(rows)
        self.parts = rows.split(size)
        self.read = []

    @property
    def sizes(self):
        return [len(part) for part in self.parts]

    def chunks(self, order=None):
        for number in range(len(self.parts)) if order is None else order:
            self.read.append(number)
            yield self.parts[number]


def numbered(count, size=None):
    """Rows that carry their own number."""
    rows = torch.arange(count, dtype=torch.float32)[:, None].expand(count, 2).contiguous()
    return TensorRows(rows) if size is None else Chunked(rows, size)


def numbers(batches):
    return torch.cat([batch[:, 0] for batch in batches]).int().tolist()


@pytest.mark.parametrize(("chunk", "batch", "window"), [(96, 8, 1000), (12, 8, 24), (16, 16, 32)])
def test_every_row_comes_out_once_an_epoch(chunk, batch, window):
    batches = Feed(numbered(96, chunk), batch, window).batches(0)
    first, second = (numbers(islice(batches, 96 // batch)) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(96))
    assert first != second
    assert first != list(range(96))


def test_only_what_fills_no_batch_at_a_windows_end_is_left_out():
    # chunks of 13 rows: windows of 26 rows give 3 batches of 8, the last one of 23 gives 2
    order = numbers(islice(Feed(numbered(101, 13), 8, 24).batches(0), 11))
    assert len(set(order)) == 88
    whole = numbers(islice(Feed(numbered(101, 13), 8).batches(0), 12))
    assert len(set(whole)) == 96


def test_memory_is_bounded_and_windows_are_read_once_for_all():
    rows = numbered(1000, 10)
    feed = Feed(rows, 8, 64)
    one, other = feed.batches(0), feed.batches(1)
    for step in range(100):
        next(one), next(other)
        # 7 chunks make a window, which gives 8 batches
        assert len(rows.read) == 7 * (step // 8 + 1)


def test_where_all_fits_rows_are_read_once():
    rows = numbered(96, 10)
    feed = Feed(rows, 8)
    for _ in islice(feed.batches(0), 100):
        pass
    assert rows.read == list(range(10))


def test_takers_have_orders_of_their_own():
    feed = Feed(numbered(96), 8)
    one, other = (numbers(islice(feed.batches(seed), 12)) for seed in (0, 1))
    assert sorted(one) == sorted(other)
    assert one != other


def test_what_a_taker_gets_does_not_depend_on_the_others():
    def alone(seed):
        return numbers(islice(Feed(numbered(200, 10), 8, 40).batches(seed), 60))

    feed = Feed(numbered(200, 10), 8, 40)
    takers = {seed: feed.batches(seed) for seed in range(3)}
    taken = {seed: [] for seed in takers}
    for _ in range(60):
        for seed, batches in takers.items():
            taken[seed] += numbers([next(batches)])
    assert taken == {seed: alone(seed) for seed in takers}


@pytest.mark.parametrize("start", [0, 1, 5, 12, 37])
def test_batches_begin_at_any_step(start):
    rows = numbered(200, 10)
    whole = list(islice(Feed(numbered(200, 10), 8, 40).batches(3), start + 4))
    later = list(islice(Feed(rows, 8, 40).batches(3, start), 4))
    assert [numbers([b]) for b in later] == [numbers([b]) for b in whole[start:]]
    # and nothing is read that is not handed out
    assert len(rows.read) <= 8


def test_where_all_fits_the_order_is_a_uniform_permutation():
    places = torch.zeros(5, 5)
    for seed in range(2000):
        order = numbers(islice(Feed(numbered(5, 2), 1).batches(seed), 5))
        places[torch.arange(5), torch.tensor(order)] += 1
    assert stats.chisquare(places.flatten()).pvalue > 1e-3


def test_rows_move_far_from_their_neighbours():
    order = torch.tensor(numbers(islice(Feed(numbered(4096, 64), 16, 1024).batches(0), 64)))
    gaps = (order[1:] - order[:-1]).abs().float()
    assert gaps.median() > 100
    # what comes first is from all over, not from the first rows
    assert order.max() - order.min() > 3000


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="7 rows do not fill one batch of 8"):
        Feed(numbered(7), 8)
