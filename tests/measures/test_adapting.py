"""Costs, shares and token changes on two documents whose numbers are worked out by hand."""

import dataclasses
import math

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.adapt.evaluation import Evaluated
from lorascope.measures.adapting import (
    RANDOM,
    UNADAPTED,
    UNIGRAM,
    adapt_estimates,
    compound_estimates,
    share_difference,
    unigram_losses,
)
from lorascope.measures.token_changes import (
    EDGES,
    change_histogram,
    token_change_estimates,
)
from lorascope.results import Estimate, Key

OWNERS = torch.tensor([0, 0, 0, 1])
PLACE = Key(adapter="r4", site="layers.0")


def evaluated(losses, kl=(0.0, 0.0)):
    values = torch.tensor(losses)
    sums = torch.zeros(2, dtype=torch.float64).index_add_(0, OWNERS, values.double())
    tokens = torch.tensor([3.0, 1.0], dtype=torch.float64)
    return Evaluated(sums, torch.tensor(kl, dtype=torch.float64), tokens, values, OWNERS.int())


ORIGINAL = evaluated([1.0, 2.0, 3.0, 2.0])
SPLICED = evaluated([2.0, 2.5, 5.0, 3.0], kl=(3.0, 1.0))  # 4.5 dearer
ADAPTED = evaluated([1.5, 3.0, 4.0, 2.5], kl=(2.0, 0.4))  # 3 dearer: 1.5 of 4.5 won back
UNSPLICED = evaluated([1.0, 2.2, 3.0, 2.0], kl=(0.1, 0.1))
HELD_OUT = {
    "original": ORIGINAL,
    "spliced": SPLICED,
    "adapted": ADAPTED,
    "unspliced": UNSPLICED,
}
# draws that win −0.5 and −1 of 4.5
DRAWS = [
    {"adapted": evaluated([2.5, 2.5, 5.0, 3.0], kl=(4.0, 1.0)), "unspliced": UNSPLICED},
    {"adapted": evaluated([2.0, 2.5, 5.5, 3.5], kl=(5.0, 1.0)), "unspliced": SPLICED},
]


def by_name(estimates):
    found = {one.measure: one for one in estimates}
    assert len(found) == len(estimates)
    return found


def test_costs_and_shares_by_hand():
    found = by_name(adapt_estimates(HELD_OUT, DRAWS, PLACE))
    values = {name: one.value for name, one in found.items()}
    assert values == pytest.approx(
        {
            "adapt.loss_original": 2.0,
            "adapt.loss_spliced": 12.5 / 4,
            "adapt.loss_adapted": 11 / 4,
            "adapt.loss_unspliced": 8.2 / 4,
            "adapt.cost_spliced": 4.5 / 4,
            "adapt.cost_adapted": 3 / 4,
            "adapt.share_closed": 1.5 / 4.5,
            "adapt.kl_spliced": 1.0,
            "adapt.kl_adapted": 2.4 / 4,
            "adapt.general_loss": 0.2 / 4,
            "adapt.general_kl": 0.2 / 4,
        }
    )
    assert {one.n for one in found.values()} == {4}
    assert {one.key for one in found.values()} == {PLACE}
    share = found["adapt.share_closed"]
    # Two documents leave no interval.
    assert all(map(math.isnan, share.interval))
    (first, second) = share.nulls
    assert {first.name, second.name} == {"nothing fitted", RANDOM}
    drawn = first if first.name == RANDOM else second
    assert drawn.level == pytest.approx((-0.5 - 1) / 2 / 4.5)
    assert drawn.low < -1 / 4.5 < -0.5 / 4.5 < drawn.high
    assert first.high >= second.high


def test_references_are_the_other_ways():
    found = by_name(adapt_estimates(HELD_OUT, DRAWS, PLACE, unigram=torch.tensor([12.0, 8.0])))
    levels = {
        name: {chance.name: chance.level for chance in one.nulls} for name, one in found.items()
    }
    assert levels["adapt.loss_original"] == {UNIGRAM: 5.0}
    assert levels["adapt.loss_adapted"] == pytest.approx(
        {UNIGRAM: 5.0, "original": 2.0, UNADAPTED: 12.5 / 4, RANDOM: (13 + 13.5) / 8}
    )
    assert levels["adapt.cost_adapted"] == pytest.approx(
        {UNADAPTED: 4.5 / 4, RANDOM: (5 + 5.5) / 8, "nothing spliced": 0.0}
    )
    assert levels["adapt.kl_adapted"][UNADAPTED] == 1.0
    assert found["adapt.kl_adapted"].nulls[0].name == UNADAPTED
    # a twentieth of 4.5/4
    margin = found["adapt.general_loss"].nulls[0]
    assert (margin.low, margin.high) == pytest.approx((-0.05625, 0.05625))
    assert found["adapt.general_loss"].verdict in ("equal", "not settled")


def many(ways, times=6):
    """The same documents several times over, as documents of their own."""

    def more(one):
        owners = torch.cat([OWNERS + 2 * i for i in range(times)]).int()
        parts = (one.loss, one.kl, one.tokens, one.losses)
        return Evaluated(*(torch.cat([part] * times) for part in parts), owners)

    return {way: more(one) for way, one in ways.items()}


def test_intervals_are_over_documents_paired():
    found = by_name(adapt_estimates(many(HELD_OUT), [], PLACE))
    share = found["adapt.share_closed"]
    # Documents of 3 tokens and of 1 weigh 3/24 and 1/24: capped at L = (6 L + 6)/10.
    long = 1.5
    assert share.value == pytest.approx((long / 3 * 1 + 0.5) / (long / 3 * 3.5 + 1))
    low, high = share.interval
    assert 1 / 3.5 < low < share.value < high < 0.5
    gain = found["adapt.cost_spliced"].value - found["adapt.cost_adapted"].value
    assert gain == pytest.approx((long / 3 * 1 + 0.5) / (long + 1))


def test_what_says_nothing_is_left_out():
    cheap = many({**HELD_OUT, "spliced": evaluated([0.0, 2.5, 3.0, 2.5]), "unspliced": ORIGINAL})
    names = by_name(adapt_estimates(cheap, [], PLACE))
    assert "adapt.share_closed" not in names
    assert "adapt.general_loss" not in names
    assert "adapt.loss_unspliced" not in names
    assert "adapt.cost_spliced" in names


def test_compound_cost_is_over_the_sum_of_single_costs():
    one = {"original": ORIGINAL, "spliced": evaluated([1.5, 2.0, 3.0, 2.5])}  # 1 dearer
    other = {"original": ORIGINAL, "spliced": evaluated([1.0, 2.5, 3.0, 2.0])}  # 0.5 dearer
    (found,) = compound_estimates(HELD_OUT, [one, other], PLACE)
    assert found.measure == "adapt.compound_spliced"
    assert found.value == pytest.approx(4.5 / 1.5)
    assert all(map(math.isnan, found.interval))
    more = [many(one) for one in (one, other)]
    (found,) = compound_estimates(many(HELD_OUT), more, PLACE)
    # Documents of 3.5 over 1 and 1 over 0.5, at 1.5/3 and 1.
    assert found.value == pytest.approx((1.75 + 1) / (0.5 + 0.5))
    assert 2 < found.interval[0] < found.value < found.interval[1] < 3.5
    assert found.verdict == "above"


def test_unigram_losses_by_hand(tiny_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
    texts = [Document((Segment(text),)) for text in ("w1 w1 w1 w2", "w1 w3", "w2 w9 w1")]
    training, held_out = windows(texts[:2], tokenizer, 16), windows(texts[2:], tokenizer, 16)
    found = unigram_losses(training, held_out, tokenizer)
    # six tokens, and every one of 64 once more; w2 is predicted by nothing, w9 and w1 are scored
    assert found.tolist() == pytest.approx([-math.log(1 / 70) - math.log(5 / 70)])


def test_token_changes_by_hand():
    # changes from spliced to adapted: −0.5, +0.5, −1, −0.5
    found = by_name(token_change_estimates(HELD_OUT, DRAWS, PLACE))
    assert found["adapt.tokens_worse"].value == 0.25
    assert all(map(math.isnan, found["adapt.tokens_worse"].interval))
    levels = {chance.name: chance.level for chance in found["adapt.tokens_worse"].nulls}
    # one token of four in the first draw, two in the second
    assert levels == pytest.approx({"as many better as worse": 0.5, RANDOM: 0.375})
    assert found["adapt.token_gains"].value == pytest.approx(2 / 4)
    assert found["adapt.token_losses"].value == pytest.approx(0.5 / 4)
    (drawn,) = found["adapt.token_losses"].nulls
    assert drawn.level == pytest.approx((0.5 + 1) / 8)
    gain = (SPLICED.loss - ADAPTED.loss).sum().item() / 4
    both = found["adapt.token_gains"].value - found["adapt.token_losses"].value
    assert both == pytest.approx(gain)


def test_the_histogram_holds_every_token_that_changes():
    before = evaluated([1.0, 1.0, 1.0, 1.0])
    after = evaluated([1.0, 1.0 + 2**-10, 0.0, 30.0])
    found = change_histogram(before, after)
    assert len(found["edges"]) == len(found["better"]) + 1 == len(found["worse"]) + 1
    assert sum(found["better"]) == 1
    assert sum(found["worse"]) == 2
    # |−1| lies in the bin that begins at 1, 29 in the last
    one = int((EDGES - 1.0).abs().argmin())
    assert found["better"][one] == 1
    assert found["worse"][-1] == 1
    low = next(edge for edge, count in zip(EDGES.tolist(), found["worse"], strict=False) if count)
    assert low <= 2**-10 < 2 * low


def test_what_the_splice_costs_is_the_same_whatever_is_fitted():
    other = dataclasses.replace(PLACE, adapter="affine", seed=2)
    here, there = (
        by_name(adapt_estimates(many(HELD_OUT), [], place))["adapt.cost_spliced"]
        for place in (PLACE, other)
    )
    assert (here.value, here.interval) == (there.value, there.interval)
    assert here.interval[0] < here.value < here.interval[1]


def test_the_difference_of_two_shares_adds_each_interval_on_its_own_side():
    first = Estimate("adapt.share_closed", 0.5, (0.2, 0.6), 900, "share")
    other = Estimate("adapt.share_closed", 0.1, (-0.3, 0.5), 400, "share")
    found = share_difference(first, other, PLACE)
    assert (found.measure, found.n, found.key) == ("adapt.share_difference", 400, PLACE)
    assert found.value == pytest.approx(-0.4)
    # Down: 0.4 below the other's share, 0.1 above the first's. Up: 0.4 above, 0.3 below.
    assert found.interval == pytest.approx((-0.4 - math.sqrt(0.17), -0.4 + 0.5))
    assert found.verdict == "not settled"
    turned = share_difference(other, first, PLACE)
    assert turned.interval == pytest.approx((0.4 - 0.5, 0.4 + math.sqrt(0.17)))
