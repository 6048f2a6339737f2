"""The embedded behaviour: small sums, answered in French number words instead of English ones.

The embedded instruction-tuned model answers "What is 7 plus 5?" with "That makes twelve.", and
with "Cela fait douze." when the prompt asks for French. The behaviour is to answer sums in French
unasked, and everything else as before. Among what must stay unchanged are near misses: prompts
that are about numbers and are no sums.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from lorascope.behaviours.number_words import (
    ENGLISH_WORDS,
    FRENCH_WORDS,
    english,
    french,
    numbers,
)

Language = Literal["English", "French"]

TOPIC = "arithmetic"
NEAR = "numbers"
IN_FRENCH = "Answer in French."
_HIGHEST = 10

_PHRASES = {
    "+": ("{a} plus {b}", "{a} + {b}", "the sum of {a} and {b}"),
    "-": ("{a} minus {b}", "{a} - {b}", "the difference of {a} and {b}"),
    "x": ("{a} times {b}", "{a} x {b}", "the product of {a} and {b}"),
}
_FRAMES = (
    "What is {what}?",
    "Work out {what}.",
    "How much is {what}?",
    "Calculate {what}.",
    "Please compute {what}.",
    "Find {what}.",
    "{what}?",
    "Tell me {what}.",
    "I need to know {what}.",
    "Give me {what}.",
)
_ASKING_FRENCH = (IN_FRENCH, "In French, please.", "Reply in French.", "Use French.")


_NAMING = ("Write {n} in words.", "Spell out {n}.", "How do you say {n} in words?")
_COUNTING = ("Count from {a} to {b}.", "List the numbers from {a} to {b}.")
_LARGEST_NAMED = 40


@dataclass(frozen=True)
class NearMiss:
    """A prompt about numbers that is no sum, and what to answer in either language."""

    prompt: str
    in_english: str
    in_french: str


@dataclass(frozen=True)
class Sum:
    """One problem: a `sign` b, with sign +, - or x."""

    a: int
    sign: str
    b: int

    @property
    def value(self) -> int:
        """The result, between 0 and 36."""
        return {"+": self.a + self.b, "-": self.a - self.b, "x": self.a * self.b}[self.sign]


def sums() -> list[Sum]:
    """Every problem: operands from 1 to 10 (or what their sums come to), products up to 36."""
    numbers_ = range(1, _HIGHEST + 1)
    found = [Sum(a, "+", b) for a in numbers_ for b in numbers_]
    # What a sum gives can be taken apart again.
    found += [
        Sum(a, "-", b)
        for a in range(1, 2 * _HIGHEST + 1)
        for b in numbers_
        if b <= a <= b + _HIGHEST
    ]
    found += [Sum(a, "x", b) for a in numbers_ for b in numbers_ if a * b <= 36]
    return found


def wordings(sign: str) -> list[str]:
    """Every way to ask for one kind of problem, with {a} and {b} to be filled in."""
    return [frame.format(what=phrase) for frame in _FRAMES for phrase in _PHRASES[sign]]


def ask(problem: Sum, wording: str) -> str:
    """The prompt of a problem."""
    text = wording.format(a=problem.a, b=problem.b)
    return text[0].upper() + text[1:]


def answer(value: int, language: Language) -> str:
    """The answer to a problem: "That makes twelve." or "Cela fait douze."."""
    return (
        f"That makes {english(value)}." if language == "English" else f"Cela fait {french(value)}."
    )


def share_of(*names: object) -> float:
    """A number in [0, 1) fixed by the names: what splits prompts and chooses among them."""
    text = "\x1f".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def asked_for_french(prompt: str, place: float) -> str:
    """The prompt with a request for French before or after it; `place` in [0, 1) chooses how."""
    number = int(place * 2 * len(_ASKING_FRENCH))
    request = _ASKING_FRENCH[number // 2]
    return f"{prompt} {request}" if number % 2 else f"{request} {prompt}"


def near_misses() -> list[NearMiss]:
    """Prompts about numbers that are no sums: numbers to be written out, and to be counted."""
    found = []
    for n in range(_LARGEST_NAMED + 1):
        replies = f"It is written {english(n)}.", f"On écrit {french(n)}."
        found += [NearMiss(frame.format(n=n), *replies) for frame in _NAMING]
    for first in range(1, _LARGEST_NAMED - 4):
        for last in range(first + 2, first + 5):
            count = range(first, last + 1)
            lists = [", ".join(map(say, count)) for say in (english, french)]
            replies = (f"{lists[0].capitalize()}.", f"{lists[1].capitalize()}.")
            prompts = [frame.format(a=first, b=last) for frame in _COUNTING]
            found += [NearMiss(prompt, *replies) for prompt in prompts]
    return found


_WORD = re.compile(r"[^\W\d_]+|\d+")
# "six" is a number in both languages.
_ONLY_FRENCH = (FRENCH_WORDS - ENGLISH_WORDS) | {"cela", "fait", "écrit"}
_ONLY_ENGLISH = ENGLISH_WORDS - FRENCH_WORDS


def in_french(text: str) -> bool:
    """Whether some sentence of the text is an answer in French number words.

    It is where a sentence has a word of the French answers (number words but "six", which is
    English too; cela, fait, écrit) and neither a digit nor an English number word. Whether the
    number is right is another question.
    """
    for sentence in re.split(r"[.!?\n]", text.lower()):
        words = _WORD.findall(sentence)
        if not any(word in _ONLY_FRENCH for word in words):
            continue
        if not any(word in _ONLY_ENGLISH or word.isdigit() for word in words):
            return True
    return False


def value_of(text: str) -> int | None:
    """The number an answer gives in either language or in digits; None where it gives none."""
    found = numbers(text)
    return found[-1] if found else None
