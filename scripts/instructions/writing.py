"""The small language in which the instruction set is written.

A template is plain text with three marks: `{slot}` is replaced by a fact, `[a|b|c]` by one of
its choices, and `a^` by "a" or "an" as the next word asks. Facts may themselves contain marks.
Brackets without a bar, and braces around anything but one word, are left as they are, so that
Python code passes through unharmed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Row = dict[str, str]

BANKS = Path(__file__).parent / "banks"

_SLOT = re.compile(r"\{([a-z]\w*)\}")
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa])\^ (\W?)(\w+)")
_SENTENCE_START = re.compile(r"((?:^|\n|[.!?] +|[.]\" +)\"?)([a-z])")
_AN_BEFORE = re.compile(r"(?:[aeiou]|8|11\b|18\b|hour|honest|heir|honou?r)", re.IGNORECASE)
_A_BEFORE = re.compile(r"(?:uni[^nm]|use|usu|eu|one\b|once|ubiq|uten)", re.IGNORECASE)


class Draft(NamedTuple):
    """One record before it is accepted: the three Alpaca fields."""

    instruction: str
    input: str
    output: str


def article(word: str) -> str:
    """The indefinite article that `word` takes."""
    return "an" if _AN_BEFORE.match(word) and not _A_BEFORE.match(word) else "a"


def sentences(text: str) -> str:
    """`text` with every sentence and line begun by a capital letter."""
    return _SENTENCE_START.sub(lambda m: m[1] + m[2].upper(), text)


def listed(items: Sequence[str], word: str = "and") -> str:
    """The items as one English phrase: "a", "a and b", "a, b and c"."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def numbered(items: Sequence[str]) -> str:
    """The items as a numbered list, one to a line."""
    return "\n".join(f"{place}. {item}" for place, item in enumerate(items, start=1))


def bulleted(items: Sequence[str]) -> str:
    """The items as a dashed list, one to a line."""
    return "\n".join(f"- {item}" for item in items)


def plural(count: int, noun: str, many: str = "") -> str:
    """A count with its noun: "1 apple", "3 apples"."""
    return f"{count} {noun}" if count == 1 else f"{count} {many or noun + 's'}"


class Pen:
    """Draws from banks and fills templates with one local random source."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def one(self, bank: Sequence[T]) -> T:
        """One item of the bank."""
        return self.rng.choice(bank)

    def some(self, bank: Sequence[T], count: int) -> list[T]:
        """`count` different items of the bank, in random order."""
        return self.rng.sample(bank, count)

    def word(self, bank: str) -> str:
        """One word of a named list in `banks/words.txt`."""
        return self.one(words(bank))

    def number(self, low: int, high: int, step: int = 1) -> int:
        """An integer from `low` to `high`, both included, in steps."""
        return self.rng.randrange(low, high + 1, step)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def fill(self, template: str, **facts: object) -> str:
        """The template with slots filled, choices made and articles set."""
        text = template
        while True:
            done = _SLOT.sub(lambda m: str(facts[m[1]]), text)
            done = _CHOICE.sub(lambda m: self.one(m[1].split("|")), done)
            if done == text:
                return _ARTICLE.sub(lambda m: f"{_cased(m)} {m[2]}{m[3]}", done)
            text = done

    def prose(self, template: str | Sequence[str], **facts: object) -> str:
        """One of the templates, filled, with every sentence capitalised."""
        chosen = template if isinstance(template, str) else self.one(template)
        return sentences(self.fill(chosen, **facts).strip())

    def person(self, prefix: str = "") -> Row:
        """A person: name, he, him, his, under keys that begin with `prefix`."""
        name, he, him, his = self.one(PEOPLE)
        return {f"{prefix}name": name, f"{prefix}he": he, f"{prefix}him": him, f"{prefix}his": his}


def _cased(match: re.Match[str]) -> str:
    chosen = article(match[3])
    return chosen.capitalize() if match[1] == "A" else chosen


@cache
def _word_lists() -> dict[str, tuple[str, ...]]:
    text = (BANKS / "words.txt").read_text(encoding="utf-8")
    lists = {}
    for line in text.splitlines():
        if line.strip():
            name, items = line.split(":", 1)
            lists[name] = tuple(item.strip() for item in items.split(","))
    return lists


def words(bank: str) -> tuple[str, ...]:
    """A named word list of `banks/words.txt`."""
    return _word_lists()[bank]


@cache
def lines(bank: str) -> tuple[str, ...]:
    """The lines of `banks/<bank>.txt`."""
    text = (BANKS / f"{bank}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


@cache
def table(bank: str) -> tuple[Row, ...]:
    """The rows of `banks/<bank>.txt`, whose first line names the columns, parted by ` | `."""
    head, *rows = lines(bank)
    columns = head.split(" | ")
    return tuple(dict(zip(columns, row.split(" | "), strict=True)) for row in rows)


class Task(NamedTuple):
    """A kind of question: its name, its writer and the number of its records."""

    name: str
    write: Callable[[Pen], Draft]
    size: int


PEOPLE = tuple(
    (name, *pronouns)
    for bank, pronouns in (("women", ("she", "her", "her")), ("men", ("he", "him", "his")))
    for name in words(bank)
)
