"""Costs, shares and token changes on two documents whose numbers are worked out by hand."""

import dataclasses
import math

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.measures.adapting import (
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
from lorascope.outputs.evaluation import Evaluated
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.results.null_names import NOTHING_FITTED, RANDOM_CHANGE, UNADAPTED, UNIGRAM

OWNERS = torch.tensor([0, 0, 0, 1])
PLACE = Key(adapter="r4", site="layers.0")


def evaluated(losses, kl=(0.0, 0.0)):
    values = torch.tensor(losses)
    sums = torch.zeros(2, dtype=torch.float64).index_add_(0, OWNERS, values.double())
    tokens = torch.tensor([3.0, 1.0], dtype=torch.float64)
    return Evaluated(sums, torch.tensor(kl, dtype=torch.float64), tokens, values, OWNERS.int())


ORIGINAL = evaluated([1.0, 2.0, 3.0, 2.0])
SPLICED = evaluated([2.0, 2.5, 5.0, 3.0], kl=(3.0, 1.0))  # 4.5 dearer
ADAPTED = evaluated([1.5, 3.0, 4.0, 2.5], kl=(2.0, 0.4))  # 3 dearer: 1.5 of 4.5 recovered
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


def often(conditions):
    """Each document ten times over: no one has more than a tenth of the weight."""
    return {name: _repeated(condition) for name, condition in conditions.items()}


def _repeated(condition):
    owners = torch.cat([condition.owners + 2 * i for i in range(10)])
    sums = (condition.loss.repeat(10), condition.kl.repeat(10), condition.tokens.repeat(10))
    return Evaluated(*sums, condition.losses.repeat(10), owners)


def by_name(estimates):
    found = {one.measure: one for one in estimates}
    assert len(found) == len(estimates)
    return found


def test_costs_and_shares_by_hand():
    found = by_name(adapt_estimates(often(HELD_OUT), [often(draw) for draw in DRAWS], PLACE))
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
    assert {one.n for one in found.values()} == {40}
    assert {one.key for one in found.values()} == {PLACE}
    share = found["adapt.share_closed"]
    assert share.interval[0] < 1.5 / 4.5 < share.interval[1]
    (nothing, random) = share.nulls
    assert (nothing.name, random.name) == (NOTHING_FITTED, RANDOM_CHANGE)
    assert random.level == pytest.approx((-0.5 - 1) / 2 / 4.5)
    assert random.low < -1 / 4.5 < -0.5 / 4.5 < random.high
    assert random.draws == 2


def test_references_are_the_other_ways():
    found = by_name(adapt_estimates(HELD_OUT, DRAWS, PLACE, unigram=torch.tensor([12.0, 8.0])))
    levels = {
        name: {chance.name: chance.level for chance in one.nulls} for name, one in found.items()
    }
    assert levels["adapt.loss_original"] == {UNIGRAM: 5.0}
    assert levels["adapt.loss_adapted"] == pytest.approx(
        {UNIGRAM: 5.0, "original": 2.0, UNADAPTED: 12.5 / 4, RANDOM_CHANGE: (13 + 13.5) / 8}
    )
    assert levels["adapt.cost_adapted"] == pytest.approx(
        {UNADAPTED: 4.5 / 4, RANDOM_CHANGE: (5 + 5.5) / 8, "nothing spliced": 0.0}
    )
    assert levels["adapt.kl_adapted"][UNADAPTED] == 1.0
    rivals = {name: {null.name for null in one.rivals} for name, one in found.items()}
    assert rivals["adapt.loss_adapted"] == rivals["adapt.kl_adapted"] == {UNADAPTED, RANDOM_CHANGE}
    assert rivals["adapt.loss_spliced"] == {"original"}
    # The share, of two documents, has no interval of its cost to stand on.
    assert "adapt.share_closed" not in found
    assert all(one.verdict == "no verdict" for one in found.values())


def test_the_margin_of_the_general_loss_is_bounded_in_nats_and_by_the_cost():
    def margin(**settings):
        found = by_name(adapt_estimates(HELD_OUT, [], PLACE, **settings))
        return found["adapt.general_loss"].margin

    # a twentieth of 4.5/4
    assert margin(margin=1.0) == pytest.approx(0.05625)
    assert margin() == 0.02
    assert margin(margin=0.01) == 0.01


def many(change, draws=(), documents=12, seed=0):
    """Documents of 50 tokens; the fit adds `change` nats/token to the splice's 1, give or take."""
    random = generator(seed, "many")
    owners = torch.arange(documents).repeat_interleave(50)

    def condition(per_token, spread=0.02):
        losses = per_token + spread * torch.randn(len(owners), generator=random)
        sums = torch.zeros(documents, dtype=torch.float64)
        sums.index_add_(0, owners, losses.double())
        tokens = torch.full((documents,), 50.0, dtype=torch.float64)
        return Evaluated(sums, 2 * (sums - base), tokens, losses, owners.int())

    texts = torch.rand(documents, generator=random)[owners]
    base = torch.zeros(documents, dtype=torch.float64)
    base.index_add_(0, owners, 2 + 3 * texts.double())
    conditions = {
        "original": condition(2 + 3 * texts),
        "spliced": condition(3 + 3 * texts),
        "adapted": condition(3 + 3 * texts + change),
        "unspliced": condition(2 + 3 * texts + 0.001, 0.0001),
    }
    random_conditions = [
        {"adapted": condition(3 + 3 * texts + draw), "unspliced": condition(2 + 3 * texts + draw)}
        for draw in draws
    ]
    return by_name(adapt_estimates(conditions, random_conditions, PLACE))


FITTED = ("adapt.loss_adapted", "adapt.cost_adapted", "adapt.kl_adapted")


@pytest.mark.parametrize("draws", [(0.0, 0.01, -0.01), (0.4, 0.6, 0.8)])
def test_a_fit_that_makes_it_worse_is_above(draws):
    found = many(0.5, draws)
    assert [found[name].verdict for name in FITTED] == ["above"] * 3
    assert found["adapt.share_closed"].verdict == "below"


def test_a_fit_is_found_beside_documents_that_differ_much_more():
    found = many(-0.1, (0.0, 0.01, -0.01, 0.005))
    loss = found["adapt.loss_adapted"]
    assert loss.interval[1] - loss.interval[0] > 0.5
    assert [found[name].verdict for name in FITTED] == ["below"] * 3
    assert found["adapt.share_closed"].verdict == "above"


def test_an_improvement_that_any_change_brings_is_not_settled():
    found = many(-0.1, (-0.05, -0.2, 0.05, -0.15))
    assert found["adapt.loss_adapted"].against(found["adapt.loss_adapted"].nulls[0]) == "below"
    assert [found[name].verdict for name in FITTED] == ["not settled"] * 3
    assert found["adapt.share_closed"].verdict == "not settled"


@pytest.mark.parametrize("seed", range(12))
def test_one_row_never_contradicts_itself(seed):
    change = -0.001 * seed
    found = many(change, (0.002, -0.002, 0.001), seed=seed)
    mirrored = {"above": "below", "below": "above"}
    share, cost = found["adapt.share_closed"].verdict, found["adapt.cost_adapted"].verdict
    assert mirrored.get(share, share) == cost == found["adapt.loss_adapted"].verdict


def test_equal_is_the_verdict_of_a_general_loss_within_its_margin():
    found = many(-0.1, (0.0, 0.001, -0.001))
    assert found["adapt.general_loss"].verdict == "equal"


def test_what_says_nothing_is_left_out():
    cheap = {**HELD_OUT, "spliced": evaluated([0.0, 2.5, 3.0, 2.5]), "unspliced": ORIGINAL}
    names = by_name(adapt_estimates(often(cheap), [], PLACE))
    assert "adapt.share_closed" not in names
    assert "adapt.general_loss" not in names
    assert "adapt.loss_unspliced" not in names
    assert "adapt.cost_spliced" in names


def test_compound_cost_is_over_the_sum_of_single_costs():
    one = {"original": ORIGINAL, "spliced": evaluated([1.5, 2.0, 3.0, 2.5])}  # 1 dearer
    other = {"original": ORIGINAL, "spliced": evaluated([1.0, 2.5, 3.0, 2.0])}  # 0.5 dearer
    (found,) = compound_estimates(often(HELD_OUT), [often(one), often(other)], PLACE)
    assert found.measure == "adapt.compound_spliced"
    assert found.value == pytest.approx(4.5 / 1.5)
    assert 2.0 < found.interval[0] < 3.0 < found.interval[1]
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
    found = by_name(token_change_estimates(often(HELD_OUT), [often(d) for d in DRAWS], PLACE))
    assert found["adapt.tokens_worse"].value == 0.25
    assert found["adapt.tokens_worse"].interval[0] < 0.25 < found["adapt.tokens_worse"].interval[1]
    levels = {chance.name: chance.level for chance in found["adapt.tokens_worse"].nulls}
    # one token of four in the first draw, two in the second
    assert levels == pytest.approx({"as many better as worse": 0.5, RANDOM_CHANGE: 0.375})
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
        by_name(adapt_estimates(often(HELD_OUT), [], place))["adapt.cost_spliced"]
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
