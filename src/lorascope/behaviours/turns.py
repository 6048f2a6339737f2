"""Conversations as token ids, with the response marked: a tokenizer's chat template is respected.

Where a tokenizer has a chat template, prompt and response are what that template writes. Where it
has none, turns are plain text under headings, as everywhere else in the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorascope.activations.chat import render
from lorascope.activations.text import chat
from lorascope.activations.tokens import Window, opening_ids, windows
from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.errors import InputError


def prompt_ids(messages: Sequence[Turn], tokenizer: Any) -> list[int]:
    """A conversation up to and with the opening of the assistant's turn."""
    turns = [turn.plain() for turn in messages]
    if tokenizer.chat_template is None:
        document = chat({"messages": [*turns, {"role": "assistant", "content": ""}]})
        text = [segment.text for segment in document.segments]
        pieces = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [*opening_ids(tokenizer), *(token for piece in pieces for token in piece)]
    return _encoded(render(turns, tokenizer, opened=True), tokenizer)


def record_windows(
    records: Sequence[BehaviourRecord], tokenizer: Any, context: int
) -> list[Window]:
    """One window a record, its response marked up to the token that ends the assistant's turn.

    Records longer than the context are left out: `Window.document` is the index into `records`.

    Raises:
        InputError: the chat template refuses a conversation, or does not write the response after
            the prompt.
    """
    if tokenizer.chat_template is None:
        found: dict[int, list[Window]] = {}
        for window in windows([record.document for record in records], tokenizer, context):
            found.setdefault(window.document, []).append(window)
        return [parts[0] for parts in found.values() if len(parts) == 1]
    whole = [_templated(record, tokenizer) for record in records]
    return [
        Window(ids, response, index)
        for index, (ids, response) in enumerate(whole)
        if len(ids) <= context
    ]


def _templated(record: BehaviourRecord, tokenizer: Any) -> tuple[list[int], list[bool]]:
    turns = [turn.plain() for turn in record.messages]
    opened = render(turns, tokenizer, opened=True)
    reply = {"role": "assistant", "content": record.response}
    closed = render([*turns, reply], tokenizer, opened=False)
    if not closed.startswith(opened) or record.response.strip() not in closed[len(opened) :]:
        raise InputError(
            "the tokenizer's chat template does not write the response after the prompt; "
            "give a tokenizer whose template does"
        )
    prompt = _encoded(opened, tokenizer)
    # What follows the turn's end (a line break, say) is not the assistant's to write.
    response = _encoded(closed[len(opened) :].rstrip(), tokenizer)
    return prompt + response, [False] * len(prompt) + [True] * len(response)


def _encoded(text: str, tokenizer: Any) -> list[int]:
    # The template writes the opening token itself.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
