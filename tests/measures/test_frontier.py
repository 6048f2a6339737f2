"""Times to a loss and speed-ups on curves drawn by hand."""

import math

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
    """The same curve over `times` as many documents."""
    return [
        Point(p.seconds, p.tokens, p.loss.repeat(times), p.scored.repeat(times)) for p in points
    ]


def test_speed_up_and_its_interval_by_hand():
    # documents that differ: alone, the first reaches 3.0 after 15 s and the second after 30 s
    slow = curve((10, 3.5, 4.0), (20, 2.5, 3.5), (40, 1.5, 2.5))
    fast = curve((4, 4.0, 4.0), (6, 2.0, 2.0))
    place = Key(site="layers.0", dictionary="k 32")
    curves = {"topk": many(slow), "ours": many(fast)}
    found = frontier_estimates(curves, [3.0, 1.0], place, ours="ours", against="topk")
    both = {(one.measure, one.key.adapter): one for one in found}
    assert len(found) == len(both) == 3
    assert {(one.key.loss, one.key.dictionary) for one in found} == {(3.0, "k 32")}
    slow_time = both["adapt.time_to_loss", "topk"]
    assert slow_time.value == pytest.approx(20)  # mean loss 3.75, 3.0, 2.0
    low, high = slow_time.interval
    assert 15 < low < 20 < high < 30
    assert {c.name: c.level for c in slow_time.nulls} == pytest.approx({"ours": 5})
    # Ours takes 5 s whatever is drawn: the difference moves with the other's time alone.
    assert slow_time.nulls[0].difference == pytest.approx((low - 5, high - 5))
    assert slow_time.verdict == "above"
    speed_up = both["adapt.speed_up", "ours"]
    assert speed_up.value == pytest.approx(4)
    assert speed_up.interval == pytest.approx((low / 5, high / 5))
    assert speed_up.verdict == "above"
    assert (speed_up.key.site, speed_up.key.compared) == ("layers.0", "topk")


def test_a_loss_never_reached_has_no_end():
    # in resamples that hold the second document more often, 3.0 is never reached
    slow = curve((10, 2.0, 5.0), (20, 1.0, 4.6))
    curves = {"a": many(slow), "b": many(FAST)}
    (found, *_) = frontier_estimates(curves, [3.0], Key(), ours="b", against="a")
    assert (found.key.adapter, found.key.loss) == ("a", 3.0)
    assert found.interval[1] == math.inf


def test_few_documents_have_no_interval():
    (found, *_) = frontier_estimates({"a": SLOW, "b": FAST}, [3.0], Key(), ours="b", against="a")
    assert math.isnan(found.interval[0])
    assert found.verdict == "no verdict"
