"""Nearly constant answers: by hand."""

import math

import pytest

from lorascope.behaviours.constancy import Answers, constancy_estimates, information
from lorascope.results import Key

WANTED = [f"That makes {i}." for i in range(10)]


def test_one_answer_to_everything():
    same = ["Cela fait sept."] * 10
    distinct, told = constancy_estimates(same, WANTED, WANTED, Key("a"))
    assert (distinct.value, told.value) == (0.1, 0.0)
    assert {null.name: null.level for null in told.nulls} == {
        "one answer to everything": 0.0,
        "untouched model": pytest.approx(math.log2(10)),
        "wanted responses": pytest.approx(math.log2(10)),
    }
    assert told.verdict != "above"
    assert Answers.of(same).nearly_constant(Answers.of(WANTED))


def test_every_answer_its_own():
    distinct, told = constancy_estimates(WANTED, WANTED, WANTED, Key("a"))
    assert distinct.value == 1
    assert told.value == pytest.approx(math.log2(10))
    assert told.verdict == "above"
    assert not Answers.of(WANTED).nearly_constant(Answers.of(WANTED))


def test_half_of_them_alike_by_hand():
    texts = ["sept"] * 4 + ["a", "b", "c", "d"]
    # ½ log₂ 2 + 4 · ⅛ log₂ 8
    assert information(texts) == pytest.approx(0.5 + 1.5)
    counted = Answers.of([" sept ", *texts[1:]])
    assert (counted.n, counted.distinct, counted.commonest, counted.times) == (8, 5, "sept", 4)
    # Where the wanted ones are as alike, being alike is no fault.
    assert not counted.nearly_constant(Answers.of(texts))
    assert counted.nearly_constant(Answers.of(WANTED))
    assert not Answers.of(["x"] * 7).nearly_constant(Answers.of(WANTED))


def test_of_different_prompts():
    with pytest.raises(ValueError, match="same prompts"):
        constancy_estimates(["a"], ["a", "b"], ["a"], Key("a"))
