"""Numbers in words, against a few known ones and by going there and back."""

from __future__ import annotations

import pytest

from lorascope.behaviours.number_words import LARGEST, english, french, numbers

KNOWN = {
    0: ("zero", "zéro"),
    6: ("six", "six"),
    16: ("sixteen", "seize"),
    17: ("seventeen", "dix-sept"),
    21: ("twenty-one", "vingt et un"),
    22: ("twenty-two", "vingt-deux"),
    60: ("sixty", "soixante"),
    71: ("seventy-one", "soixante et onze"),
    79: ("seventy-nine", "soixante-dix-neuf"),
    80: ("eighty", "quatre-vingts"),
    81: ("eighty-one", "quatre-vingt-un"),
    91: ("ninety-one", "quatre-vingt-onze"),
    99: ("ninety-nine", "quatre-vingt-dix-neuf"),
}


@pytest.mark.parametrize(("n", "words"), KNOWN.items())
def test_known_numbers(n, words):
    assert (english(n), french(n)) == words


def test_there_and_back():
    for n in range(LARGEST + 1):
        assert numbers(f"That makes {english(n)}.") == [n]
        assert numbers(f"Cela fait {french(n)}!") == [n]
    assert numbers("Trois, 14 and twenty-one; often, tenfold.") == [3, 14, 21]


@pytest.mark.parametrize("n", [-1, LARGEST + 1])
def test_what_has_no_words_here(n):
    with pytest.raises(ValueError, match="not between"):
        french(n)
