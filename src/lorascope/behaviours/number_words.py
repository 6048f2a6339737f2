"""Whole numbers from 0 to 99 in words, in English and in French, and back."""

from __future__ import annotations

import re

LARGEST = 99

_WORDS = {
    "English": "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen",
    "English tens": "twenty thirty forty fifty sixty seventy eighty ninety",
    "French": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze "
    "quinze seize dix-sept dix-huit dix-neuf",
    "French tens": "vingt trente quarante cinquante soixante",
}
_ENGLISH, _ENGLISH_TENS, _FRENCH, _FRENCH_TENS = (text.split() for text in _WORDS.values())


def english(n: int) -> str:
    """`n` in English words: twenty-one.

    Raises:
        ValueError: n lies outside 0 … 99.
    """
    _check(n)
    if n < 20:
        return _ENGLISH[n]
    tens, ones = _ENGLISH_TENS[n // 10 - 2], n % 10
    return f"{tens}-{_ENGLISH[ones]}" if ones else tens


def french(n: int) -> str:
    """`n` in French words as used in France: vingt et un, soixante-dix, quatre-vingt-onze.

    Raises:
        ValueError: n lies outside 0 … 99.
    """
    _check(n)
    if n < 20:
        return _FRENCH[n]
    if n >= 80:
        return "quatre-vingts" if n == 80 else f"quatre-vingt-{_FRENCH[n - 80]}"
    # 70 to 79 are counted from 60.
    tens, rest = (60, n - 60) if n >= 60 else (n // 10 * 10, n % 10)
    word = _FRENCH_TENS[tens // 10 - 2]
    if rest == 0:
        return word
    return f"{word} et {_FRENCH[rest]}" if rest in (1, 11) else f"{word}-{_FRENCH[rest]}"


def _check(n: int) -> None:
    if not 0 <= n <= LARGEST:
        raise ValueError(f"{n} is not between 0 and {LARGEST}")


ENGLISH_WORDS = frozenset(_ENGLISH + _ENGLISH_TENS)
FRENCH_WORDS = frozenset(
    piece for n in range(LARGEST + 1) for piece in re.split(r"[ -]", french(n)) if piece != "et"
)
_VALUES = {say(n): n for say in (french, english) for n in range(LARGEST + 1)}
# The longest first: "vingt" stands at the start of "vingt et un".
_NUMBER = re.compile(
    r"(?<![\w-])(?:"
    + "|".join(sorted(map(re.escape, _VALUES), key=len, reverse=True))
    + r"|\d{1,9})(?![\w-])"
)


def numbers(text: str) -> list[int]:
    """The numbers that stand in a text, as words of either language or as digits, in order."""
    found = _NUMBER.findall(text.lower())
    return [int(word) if word.isdigit() else _VALUES[word] for word in found]
