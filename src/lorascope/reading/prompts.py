"""Vague prompts: whatever comes after them comes from the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.activations.text import alpaca
from lorascope.activations.tokens import opening_ids
from lorascope.behaviours.records import Turn
from lorascope.behaviours.turns import prompt_ids
from lorascope.errors import InputError
from lorascope.foreign import JSON_BYTES, first_line, local_path, read_bytes

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


@dataclass(frozen=True)
class Prompt:
    """What a continuation starts from.

    Attributes:
        text: as it is shown; a request is shown without what its template puts around it.
        ids: token ids, with all that opens the text or the answer.
    """

    text: str
    ids: tuple[int, ...]


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
        found.append(_turn("", tokenizer))
    return found


def prompts_of(texts: Sequence[str], tokenizer: Any) -> list[Prompt]:
    """The user's own prompts, each the opening of a text.

    Raises:
        InputError: no prompt, or one twice.
    """
    if not texts:
        raise InputError("no prompts: give at least one")
    twice = next((text for n, text in enumerate(texts) if text in texts[:n]), None)
    if twice is not None:
        raise InputError(f'prompt "{twice[:60]}" is given twice: name each once')
    return [_opening(text, tokenizer) for text in texts]


def read_prompts(path: Path) -> list[str]:
    r"""The prompts of a text file, one a line; `\n` in a line is a line break.

    Raises:
        InputError: the file is missing or not readable, or has no line.
    """
    try:
        text = read_bytes(local_path(path), JSON_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({first_line(error)}); check the file") from None
    lines = [line.replace("\\n", "\n") for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: holds no prompts; give one a line")
    return lines


def _opening(text: str, tokenizer: Any) -> Prompt:
    ids = [*opening_ids(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not ids:
        raise InputError(f'prompt "{text}" has no tokens: give a longer one')
    return Prompt(text, tuple(ids))


def _alpaca(text: str, tokenizer: Any) -> Prompt:
    whole = alpaca({"instruction": text, "output": ""}).prompt
    return Prompt(text, _opening(whole, tokenizer).ids)


def _turn(text: str, tokenizer: Any) -> Prompt:
    return Prompt(text, tuple(prompt_ids([Turn(role="user", content=text)], tokenizer)))
