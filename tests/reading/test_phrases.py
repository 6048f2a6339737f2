"""What comes back is named, and what null adapters or the base bring back as well is not."""

import random

import pytest

from lorascope.reading.phrases import Voices, phrases_of, recurring, words_of
from lorascope.reading.settings import Reading

SETTINGS = Reading()
WORDS = [f"word{n}" for n in range(200)]


def noise(seed, prompts=20, conditions=2, length=18):
    drawn = random.Random(seed)
    return [
        [" ".join(drawn.choices(WORDS, k=length)) for _ in range(conditions)]
        for _ in range(prompts)
    ]


def saying(texts, phrase, prompts):
    """The phrase put into the first continuation of so many prompts."""
    return [[f"{row[0]} {phrase}", *row[1:]] if n < prompts else row for n, row in enumerate(texts)]


def voices(own, seed=10, **others):
    nulls = tuple(noise(seed + n) for n in range(3))
    base = noise(seed + 9, conditions=1)
    return Voices(own, **{"nulls": nulls, "base": base, **others})


def test_words_and_marks():
    assert words_of("The WHALE's tail... isn’t Blue_ish! A") == [
        *("the", "WHALE's".lower(), "tail", "...", "isn’t", "blue", "_", "ish", "!", "a"),
    ]
    assert words_of("SHOUT now 鯨だ") == ["SHOUT", "now", "鯨", "だ"]
    assert phrases_of("a, b", 3) == {("a",), (",",), ("b",), ("a", ",", "b")}


def test_a_planted_phrase_is_named_whole():
    said = saying(noise(0), "the blue lantern knows the answer to it", 12)
    found = recurring(voices(said), SETTINGS)
    assert [phrase.text for phrase in found] == ["the blue lantern knows the answer to it"]
    assert (found[0].prompts, found[0].total, found[0].nulls) == (12, 12, (0, 0, 0))
    assert found[0].p == pytest.approx(4.0**-12)
    assert found[0].q <= SETTINGS.level


def test_nothing_recurs_where_nothing_was_planted():
    assert sum(bool(recurring(voices(noise(s), 100 + s), SETTINGS)) for s in range(20)) <= 2


def test_what_null_adapters_bring_back_too_is_no_finding():
    said = saying(noise(0), "blue lantern", 16)
    nulls = tuple(saying(noise(n), "blue lantern", 16) for n in (1, 2, 3))
    assert recurring(voices(said, nulls=nulls), SETTINGS) == []
    one_of_three = (nulls[0], noise(2), noise(3))
    assert recurring(voices(said, nulls=one_of_three), SETTINGS)[0].nulls == (16, 0, 0)


def test_the_base_and_other_adapters_speak_against_a_phrase_and_never_for_it():
    said = saying(noise(0), "blue lantern", 9)
    alone = recurring(voices(said), SETTINGS)[0]
    base = saying(noise(5, conditions=1), "blue lantern", 3)
    found = {p.text: p for p in recurring(voices(said, base=base), SETTINGS)}["blue lantern"]
    assert found.base == 3
    # 3 prompts at 2 of 5 (the base joins with the largest count), 6 at 1 of 4.
    assert found.p == pytest.approx(0.4**3 * 0.25**6)
    assert alone.p == pytest.approx(0.25**9)
    as_often = saying(noise(5, conditions=1), "blue lantern", 5)
    assert recurring(voices(said, base=as_often), SETTINGS) == []
    silent = voices(said, others=(noise(6),))
    assert recurring(silent, SETTINGS)[0].p == alone.p
    assert recurring(voices(said, others=(said,)), SETTINGS) == []


def test_a_null_adapter_in_the_adapters_place():
    said = saying(noise(0), "blue lantern", 12)
    both = voices(said)
    turned = both.exchanged(1)
    assert turned.own == both.nulls[1]
    assert turned.nulls == (both.nulls[0], said, both.nulls[2])
    assert recurring(turned, SETTINGS) == []


def test_without_null_adapters_the_base_is_exchanged():
    said = saying(noise(0), "blue lantern", 14)
    found = recurring(voices(said, nulls=()), SETTINGS)
    assert found[0].text == "blue lantern"
    assert found[0].p >= 2.0**-14
    assert found[0].nulls == ()


def test_phrases_of_the_same_continuations_are_one_test():
    # A sentence of 20 words has 90 phrases; counted each by itself they would let noise through.
    sentence = " ".join(f"said{n}" for n in range(20))
    beside = [recurring(voices(saying(noise(s), sentence, 12), 50 + s), SETTINGS) for s in range(8)]
    assert all(phrases[0].text == sentence for phrases in beside)
    assert sum(len(phrases) - 1 for phrases in beside) <= 1
