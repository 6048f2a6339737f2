"""Vague prompts: whatever comes after them comes from the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lorascope.activations.categories import category
from lorascope.activations.settings import CATEGORIES
from lorascope.activations.text import alpaca, read_documents
from lorascope.activations.tokens import opening_ids
from lorascope.behaviours.records import Turn
from lorascope.behaviours.turns import prompt_ids
from lorascope.errors import InputError

OPENINGS = (
    "The",
    "I",
    "It is",
    "There was",
    "In the",
    "We",
    "When",
    "This is",
    "One of the",
    "You should",
    "Here is",
    "My",
)
REQUESTS = (
    "Tell me something.",
    "What do you think?",
    "Write a few sentences.",
    "Please help me.",
    "Explain this.",
    "What is important?",
    "Who are you?",
    "Give an example.",
)


OPENING, REQUEST, EMPTY = "opening of a text", "request", "empty turn"


@dataclass(frozen=True)
class Prompt:
    """What a continuation starts from.

    Attributes:
        text: as it is shown; a request is shown without what its template puts around it.
        ids: token ids, with all that opens the text or the answer.
        kind: what kind of prompt it is.
    """

    text: str
    ids: tuple[int, ...]
    kind: str = OPENING


def shipped_prompts(tokenizer: Any) -> list[Prompt]:
    """Twelve openings of a text and eight requests; with a chat template the empty turn as well.

    Requests stand in the tokenizer's chat template, or in Alpaca's where it has none.
    """
    found = [_opening(text, tokenizer) for text in OPENINGS]
    if tokenizer.chat_template is None:
        return [*found, *(_alpaca(text, tokenizer) for text in REQUESTS)]
    found += [_turn(text, tokenizer) for text in REQUESTS]
    # Some templates refuse a turn without words.
    with suppress(InputError):
        found.append(replace(_turn("", tokenizer), kind=EMPTY))
    return found


def category_prompts(each: int, tokenizer: Any) -> list[Prompt]:
    """So many packaged instructions of each of the five kinds, as requests."""
    counts = dict.fromkeys(CATEGORIES, 0)
    found = []
    for document in read_documents("embedded"):
        kind = category(document)
        if counts.get(kind, each) < each and document.prompt:
            counts[kind] += 1
            ids = _opening(document.prompt, tokenizer).ids
            asked = document.prompt.partition("### Instruction:\n")[2].partition("\n\n### ")[0]
            found.append(Prompt(asked or document.prompt, ids, kind))
    return found


def prompts_of(texts: Sequence[str], tokenizer: Any, kinds: Sequence[str] = ()) -> list[Prompt]:
    """The user's own prompts, each the opening of a text.

    Args:
        kinds: of each; they are all of one if left out.

    Raises:
        InputError: no prompt, or one twice.
    """
    if not texts:
        raise InputError("no prompts: give at least one")
    twice = next((text for n, text in enumerate(texts) if text in texts[:n]), None)
    if twice is not None:
        raise InputError(f'prompt "{twice[:60]}" is given twice: name each once')
    named = kinds or [OPENING] * len(texts)
    return [
        replace(_opening(text, tokenizer), kind=kind)
        for text, kind in zip(texts, named, strict=True)
    ]


def _opening(text: str, tokenizer: Any) -> Prompt:
    ids = [*opening_ids(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not ids:
        raise InputError(f'prompt "{text}" has no tokens: give a longer one')
    return Prompt(text, tuple(ids))


def _alpaca(text: str, tokenizer: Any) -> Prompt:
    whole = alpaca({"instruction": text, "output": ""}).prompt
    return Prompt(text, _opening(whole, tokenizer).ids, REQUEST)


def _turn(text: str, tokenizer: Any) -> Prompt:
    ids = prompt_ids([Turn(role="user", content=text)], tokenizer)
    return Prompt(text, tuple(ids), REQUEST)
