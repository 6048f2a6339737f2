"""Times to a loss and speed-ups on curves drawn by hand."""

import math
from dataclasses import replace

import pytest
import torch

from lorascope.measures.frontier import Point, frontier_estimates, reached, time_to_reach
from lorascope.results import Key

SCORED = torch.tensor([2.0, 2.0])


def curve(*points):
    """Points of (seconds, loss of the first document, of the second) a token."""
    return [
        Point(seconds, 100, torch.tensor([one, other]) * SCORED, SCORED)
        for seconds, one, other in points
    ]


SLOW = curve((10, 4.0, 4.0), (20, 3.0, 3.0), (40, 2.0, 2.0))
FAST = curve((4, 4.0, 4.0), (6, 2.0, 2.0), (8, 3.0, 3.0))


def test_time_is_interpolated_on_the_lowest_loss_so_far():
    assert time_to_reach(SLOW, 3.0) == 20
    assert time_to_reach(SLOW, 2.25) == pytest.approx(35)
    assert time_to_reach(SLOW, 4.5) == 10  # there is nothing before the first point
    assert time_to_reach(SLOW, 1.9) == math.inf
    # the third point of the fast curve is worse than its second, and no later start over
    assert time_to_reach(FAST, 3.0) == pytest.approx(5)
    assert time_to_reach(FAST, 2.0) == 6
    # points may come in any order
    assert time_to_reach(SLOW[::-1], 2.25) == pytest.approx(35)
    rows = torch.tensor([[4.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    found = reached(torch.tensor([10.0, 20.0, 40.0]), rows, 2.5)
    assert found.tolist() == [30.0, math.inf]


def many(points, times=5):
    """The same documents several times over."""
    return [replace(p, loss=p.loss.repeat(times), scored=p.scored.repeat(times)) for p in points]


def test_too_few_documents_have_no_interval():
    (found, *_) = frontier_estimates({"a": SLOW, "b": FAST}, [3.0], Key(), ours="b", against="a")
    assert all(map(math.isnan, found.interval))


def test_speed_up_and_its_interval_by_hand():
    # documents that differ: alone, the first kind reaches 3.0 after 15 s, the second after 30 s
    slow = many(curve((10, 3.5, 4.0), (20, 2.5, 3.5), (40, 1.5, 2.5)))
    fast = many(curve((4, 4.0, 4.0), (6, 2.0, 2.0)))
    place = Key(site="layers.0", setting="k 32")
    curves = {"topk": slow, "ours": fast}
    found = frontier_estimates(curves, [3.0, 1.0], place, ours="ours", against="topk")
    both = {(one.measure, one.key.setting): one for one in found}
    assert set(both) == {
        ("adapt.time_to_loss", "k 32 topk 3.000"),
        ("adapt.time_to_loss", "k 32 ours 3.000"),
        ("adapt.speed_up", "k 32 3.000"),
    }
    slow_time = both["adapt.time_to_loss", "k 32 topk 3.000"]
    assert slow_time.value == pytest.approx(20)  # mean loss 3.75, 3.0, 2.0
    assert 15 < slow_time.interval[0] < 19
    assert 21 < slow_time.interval[1] < 30
    assert {c.name: c.level for c in slow_time.nulls} == pytest.approx({"ours": 5})
    speed_up = both["adapt.speed_up", "k 32 3.000"]
    assert speed_up.value == pytest.approx(4)
    assert speed_up.interval == pytest.approx([end / 5 for end in slow_time.interval], rel=0.1)
    assert speed_up.verdict == "above"
    assert speed_up.key.site == "layers.0"


def test_a_loss_never_reached_has_no_end():
    # in resamples with too many of the second kind, 3.0 is never reached
    slow, fast = many(curve((10, 2.0, 5.0), (20, 1.5, 4.4))), many(FAST)
    (found, *_) = frontier_estimates({"a": slow, "b": fast}, [3.0], Key(), ours="b", against="a")
    assert found.key.setting == "a 3.000"
    assert found.interval[1] == math.inf
