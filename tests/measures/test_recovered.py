"""Nats recovered, and one block's part of what all blocks recover, by hand."""

import pytest
import torch

from lorascope.measures.recovered import next_share, recovered
from lorascope.outputs.evaluation import Evaluated
from lorascope.results import Key

TOKENS = torch.full((10,), 20.0, dtype=torch.float64)


def sums(mean, wobble=0.0):
    wave = wobble * torch.tensor([1.0, -1.0] * 5, dtype=torch.float64)
    loss = mean * TOKENS + wave
    nothing = torch.zeros(0)
    return Evaluated(loss, torch.zeros_like(loss), TOKENS, nothing, nothing.int())


def ways(adapted, wobble=0.0):
    return {
        "original": sums(3.0),
        "spliced": sums(4.0),
        "adapted": sums(adapted, wobble),
    }


def test_nats_won_back():
    one = recovered(ways(3.4, 0.5), Key("lora"))
    assert one.value == pytest.approx(0.6)
    assert one.verdict == "above"
    assert one.unit == "nats/token"
    assert one.interval[0] < 0.6 < one.interval[1]
    # A fit that makes it worse recovers less than nothing.
    worse = recovered(ways(4.2, 0.5), Key("lora"))
    assert worse.value == pytest.approx(-0.2)
    assert worse.verdict == "below"
    # A twentieth of what the splice costs counts as nothing.
    assert recovered(ways(3.99, 0.01), Key("lora")).verdict == "equal"


def test_the_next_block_against_all():
    one = next_share(ways(3.5, 0.2), ways(3.2), Key("next"))
    assert one.value == pytest.approx(0.5 / 0.8)
    assert one.verdict == "below"
    assert next_share(ways(3.2), ways(3.2), Key("next")).verdict == "equal"


def test_of_different_texts():
    other = {
        name: Evaluated(*[t.clone() for t in (e.loss, e.kl, e.tokens + 1)], e.losses, e.owners)
        for name, e in ways(3.5).items()
    }
    with pytest.raises(ValueError, match="different texts"):
        next_share(ways(3.5), other, Key("next"))
