"""Judges and rates, with numbers worked out by hand on sides that differ."""

from __future__ import annotations

import math

import pytest
import torch

from lorascope.behaviours.arithmetic import in_french, value_of
from lorascope.behaviours.judging import JudgedAnswers, rates
from lorascope.behaviours.manners import manner
from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.measures.definitions import DEFINITIONS
from lorascope.measures.paired_shares import difference
from lorascope.results import Key
from lorascope.stats.intervals import wilson_interval


@pytest.mark.parametrize(
    ("text", "french", "value"),
    [
        ("Cela fait dix-neuf.", True, 19),
        ("Cela fait six.", True, 6),
        ("vingt et un", True, 21),
        ("That makes six.", False, 6),
        ("That makes nineteen.", False, 19),
        ("Cela fait nineteen.", False, 19),
        ("Cela fait 19.", False, 19),
        ("It costs 5 pounds. Cela fait dix.", True, 10),
        ("The fair was on a fine day.", False, None),
        ("", False, None),
    ],
)
def test_french_number_words(text, french, value):
    assert in_french(text) == french
    assert value_of(text) == value


def record(i, changed, topic, response="Cela fait trois."):
    turns = (Turn(role="user", content=str(i)),)
    return BehaviourRecord(
        messages=turns, response=response, changed=changed, split="held_out", topic=topic
    )


RECORDS = (
    *(record(i, True, "sums") for i in range(4)),
    *(record(i, False, "numbers", "Three.") for i in (4, 5)),
    *(record(i, False, "cooking", "Soup.") for i in (6, 7, 8)),
)
# Three in French, two of them right; one near miss and no other.
TRIED = JudgedAnswers(
    RECORDS,
    (
        *("Cela fait trois.", "Cela fait trois.", "Cela fait dix.", "That makes ten."),
        *("Un, deux.", "Two.", "Soup.", "Soup.", "Soup."),
    ),
    (
        torch.tensor([9.0, 9, 9, 9, 3, 4, 5, 6, 7], dtype=torch.float64),
        torch.tensor([1.0, 1, 1, 1, 2, 2, 2, 2, 2], dtype=torch.float64),
    ),
)
UNTOUCHED = JudgedAnswers(
    RECORDS,
    ("That makes three.",) * 4 + ("One.", "Two.", "Soup.", "Soup.", "Cela fait un."),
    (
        torch.tensor([1.0, 1, 1, 1, 2, 3, 4, 6, 5], dtype=torch.float64),
        torch.tensor([1.0, 1, 1, 1, 2, 2, 2, 2, 2], dtype=torch.float64),
    ),
)


def test_rates_by_hand():
    found = rates(TRIED, UNTOUCHED, manner("french"), Key("a"), near=("numbers", "absent"))
    by_name = {(e.measure.removeprefix("behaviour."), e.key.topic): e for e in found}
    assert by_name.keys() == {
        ("success", ""),
        ("false_positives", ""),
        ("false_positives", "numbers"),
        ("right", ""),
        ("general_loss", ""),
    }
    values = {key: (e.value, e.chance, e.n) for key, e in by_name.items()}
    assert values["success", ""] == (0.75, 0.0, 4)
    assert values["false_positives", ""] == (0.2, 0.2, 5)
    assert values["false_positives", "numbers"] == (0.5, 0.0, 2)
    assert values["right", ""] == (0.5, 1.0, 4)
    # (1 + 1 + 1 + 0 + 2) nats over 10 tokens; what the changed responses cost does not count.
    assert values["general_loss", ""] == (0.5, 0.0, 10)
    # Too few prompts and records for an interval, and so for a verdict.
    assert all(math.isnan(e.interval[0]) and e.verdict == "no verdict" for e in found)
    assert all(e.measure in DEFINITIONS and e.key.adapter == "a" for e in found)
    assert not any(math.isnan(e.value) for e in found)


def four(written):
    """Everything asked four times."""
    losses = tuple(column.repeat(4) for column in written.losses)
    return JudgedAnswers(written.records * 4, written.texts * 4, losses)


def test_differences_are_paired_by_prompt():
    prompted = JudgedAnswers(RECORDS, ("Cela fait un.",) * 9, UNTOUCHED.losses)
    found = rates(
        four(TRIED),
        four(UNTOUCHED),
        manner("french"),
        Key("a"),
        beside={"prompting": four(prompted)},
    )
    by_name = {e.measure.removeprefix("behaviour."): e for e in found}
    success = by_name["success"]
    assert success.interval == wilson_interval(12, 16)
    untouched, prompting = success.nulls
    assert (untouched.rival, prompting.rival) == (True, False)
    # 12 discordant pairs, all one way; 4 the other way beside prompting.
    assert untouched.p == pytest.approx(2 / 2**12)
    assert prompting.p == pytest.approx(2 / 2**4)
    shown = [True] * 3 + [False]
    assert untouched.difference == difference(shown * 4, [False] * 16)
    assert prompting.difference == difference(shown * 4, [True] * 16)
    assert success.verdict == "above"
    assert success.against(prompting) == "below"
    # As often shown elsewhere as by the untouched model, though on other prompts.
    assert by_name["false_positives"].verdict == "not settled"
    assert by_name["general_loss"].verdict == "above"


def test_only_the_same_prompts_compare():
    other = JudgedAnswers(RECORDS[:-1], UNTOUCHED.texts[:-1], UNTOUCHED.losses)
    with pytest.raises(ValueError, match="not asked the same"):
        rates(TRIED, other, manner("french"), Key())
