"""Manners of answering: what a changed response looks like, and how it is told from others.

Rules rewrite and judge by themselves. A manner in words ("in the voice of a pirate") is for a
language model to write; it is judged by a pattern that its answers match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lorascope.behaviours.arithmetic import IN_FRENCH, answer, in_french, value_of
from lorascope.behaviours.number_words import LARGEST
from lorascope.errors import InputError, did_you_mean

Judge = Callable[[str], bool]
Rewrite = Callable[[str], str | None]
# (the response wanted, an answer) → whether the answer is right.
Check = Callable[[str, str], bool]

RULES = ("french", "upper", "prefix:TEXT", "suffix:TEXT")


@dataclass(frozen=True)
class Manner:
    """A way of answering.

    Attributes:
        name: as it is written in a command or a manifest.
        instruction: asks a model for it, for prompting as a baseline.
        shows: whether a text is in this manner; None where only its author could say.
        rewrite: a response in this manner, or None where the rule cannot; None for a manner that
            a model has to write.
        right: whether an answer is right, where rules can tell.
    """

    name: str
    instruction: str
    shows: Judge | None = None
    rewrite: Rewrite | None = None
    right: Check | None = None


def manner(name: str, pattern: str = "") -> Manner:
    """The manner of that name: a rule's, or else words for a model to follow.

    Args:
        name: french, upper, prefix:TEXT, suffix:TEXT, or a description ("in verse").
        pattern: a regular expression found in texts of a described manner ((?i) for any case).

    Raises:
        InputError: an empty or misspelt name, or a pattern that is no regular expression.
    """
    kind, _, text = name.partition(":")
    if kind in ("prefix", "suffix"):
        if not text.strip():
            raise InputError(f'manner "{name}": give the text, as in {kind}:"Arr, "')
        return _affix(name, kind, text)
    if name in _RULED:
        return _RULED[name]
    hint = did_you_mean(name, ["french", "upper", "prefix", "suffix"]) if " " not in name else ""
    if not name.strip() or hint:
        raise InputError(
            f'there is no manner "{name}".{hint} Rules: {", ".join(RULES)}; or describe it in '
            'several words, as in "in the voice of a pirate"'
        )
    return Manner(name, f"Answer {name}.", _matches(pattern) if pattern else None)


def judged(name: str, pattern: str = "") -> Manner:
    """As `manner`, with something that tells whether an answer shows it.

    Raises:
        InputError: nothing does, or as `manner`.
    """
    found = manner(name, pattern)
    if found.shows is None:
        raise InputError(
            f'manner "{name}" has no judge: give judge, a pattern that its answers match'
        )
    return found


def same_number(wanted: str, given: str) -> bool:
    """Whether an answer gives the number that the wanted response gives."""
    value = value_of(given)
    return value is not None and value == value_of(wanted)


def _french(response: str) -> str | None:
    value = value_of(response)
    return answer(value, "French") if value is not None and value <= LARGEST else None


def _is_upper(text: str) -> bool:
    return text.isupper()


_RULED = {
    "french": Manner("french", IN_FRENCH, in_french, _french, same_number),
    "upper": Manner("upper", "Answer in capital letters.", _is_upper, str.upper),
}


def _affix(name: str, kind: str, text: str) -> Manner:
    first = kind == "prefix"
    stripped = text.strip()

    def shows(answered: str) -> bool:
        given = answered.strip()
        return given.startswith(stripped) if first else given.endswith(stripped)

    def rewrite(response: str) -> str:
        return text + response if first else response + text

    where = "Begin" if first else "End"
    return Manner(name, f'{where} your answer with "{stripped}".', shows, rewrite)


def _matches(pattern: str) -> Judge:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise InputError(f'--judge "{pattern}": not a regular expression ({error})') from None
    return lambda text: found.search(text) is not None
