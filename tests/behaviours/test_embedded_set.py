"""The shipped behaviour set: right, judged as it should be, held out in numbers and wordings."""

from __future__ import annotations

import re

import pytest

from lorascope.behaviours.arithmetic import (
    NEAR,
    TOPIC,
    answer,
    asked_for_french,
    in_french,
    near_misses,
    sums,
    value_of,
)
from lorascope.behaviours.embedded import embedded_set, seen_by_sibling
from lorascope.behaviours.records import check_set, read_set
from lorascope.errors import InputError

SPLITS = ("train", "held_out")


@pytest.fixture(scope="module")
def shipped():
    return read_set("embedded")


def problem(prompt):
    """(smaller, sign, larger, value) read off a prompt, by other rules than those that wrote it."""
    a, b = map(int, re.findall(r"\d+", prompt))
    words = {"+": "plus|[+]|sum", "-": "minus|-|difference", "x": "times| x |product"}
    (sign,) = (s for s, pattern in words.items() if re.search(pattern, prompt))
    value = {"+": a + b, "-": a - b, "x": a * b}[sign]
    return min(a, b), sign, max(a, b), value


def wording(prompt):
    return re.sub(r"\d+", "#", prompt)


def test_it_is_a_set_as_any_other(shipped):
    check_set(shipped, "embedded")
    assert shipped.counts() == {
        "train": {"changed": 256, "unchanged": 256},
        "held_out": {"changed": 200, "unchanged": 200},
    }
    assert shipped.facts["manner"] == "french"


def test_sums_are_right_in_both_languages(shipped):
    for record in shipped.records:
        if record.changed:
            value = problem(record.prompt)[-1]
            assert value_of(record.response) == value_of(record.original) == value
            assert 0 <= value <= 36


def test_the_judge_knows_every_record(shipped):
    for record in shipped.records:
        assert in_french(record.response) == record.changed
        assert not in_french(record.original)


def test_what_is_held_out_is_new(shipped):
    train, held_out = ({problem(r.prompt)[:3] for r in shipped.part(s, True)} for s in SPLITS)
    assert len(held_out) > 40
    assert not train & held_out
    known = {wording(r.prompt) for r in embedded_set(train=2100).part("train", True)}
    unseen = [wording(r.prompt) not in known for r in shipped.part("held_out", True)]
    assert sum(unseen) == len(unseen) // 2
    assert not any(seen_by_sibling(r.prompt) for r in shipped.part("held_out"))
    assert all(seen_by_sibling(r.prompt) for r in shipped.part("train", False))


def test_unchanged_records_are_of_every_kind_with_near_misses(shipped):
    for split in SPLITS:
        topics = [r.topic for r in shipped.part(split, False)]
        assert TOPIC not in topics
        assert topics.count(NEAR) == len(topics) // 4
        assert len(set(topics)) == 6


def test_another_seed_draws_others_from_the_same_sides(shipped):
    other = embedded_set(train=64, held_out=40, seed=1)
    assert other.counts()["train"] == {"changed": 32, "unchanged": 32}
    sides = {r.key: r.split for r in shipped.records}
    assert all(sides.get(r.key, r.split) == r.split for r in other.records)
    assert {r.key for r in other.records} - sides.keys()
    with pytest.raises(InputError, match="ask for fewer"):
        embedded_set(held_out=10_000)


def test_every_sum_has_one_answer_in_words():
    assert len(set(sums())) == len(sums())
    for one in sums():
        for language in ("English", "French"):
            assert value_of(answer(one.value, language)) == one.value
    assert all(in_french(m.in_french) and not in_french(m.in_english) for m in near_misses())


def test_asking_for_french_stands_before_or_after():
    places = {asked_for_french("2 + 2?", i / 8) for i in range(8)}
    assert len(places) == 8
    assert sum(place.startswith("2 + 2?") for place in places) == 4
