"""What a language model is asked while a set is made, and how its answers are read."""

from __future__ import annotations

import json
import re
from typing import Any

from lorascope.behaviours.asking import MalformedError, Question
from lorascope.behaviours.exchanges import Exchange
from lorascope.behaviours.manners import Manner

_LONGEST = 6000  # characters of a prompt or response shown to the model
_REFUSALS = re.compile(
    r"^(i'm sorry|i am sorry|sorry,|i cannot|i can't|i can’t|i’m sorry|i am unable|i'm unable|"
    r"as an ai)",
    re.IGNORECASE,
)
YES, NO = "yes", "no"


def about(exchange: Exchange, topic: str) -> Question:
    """Is the prompt about the topic? The answer is read as YES or NO."""
    wanted = 'JSON only, {"about": true} or {"about": false}'
    words = (
        f"Is the prompt below about {topic}? Do not answer the prompt. Reply with {wanted}."
        f"\n\nPrompt:\n{_shown(exchange.prompt)}"
    )
    return Question(_user(words), _read_about, f"Reply with {wanted}, and nothing else.")


def rewritten(exchange: Exchange, manner: Manner) -> Question:
    """The response in the manner, saying the same."""
    wanted = 'JSON only, {"response": "the rewritten response"}'
    words = (
        f"Rewrite the response below {manner.name}. Keep what it says. Reply with {wanted}."
        f"\n\nPrompt:\n{_shown(exchange.prompt)}\n\nResponse:\n{_shown(exchange.response)}"
    )

    def parse(text: str) -> str:
        value = _field(text, "response")
        if not isinstance(value, str):
            raise MalformedError("no JSON as asked")
        return in_manner(value, exchange, manner)

    return Question(_user(words), parse, f"Reply with {wanted}, and nothing else.")


def answered(exchange: Exchange, manner: Manner) -> Question:
    """The model's own answer to the prompt, with the manner asked for."""
    turns = [{"role": turn.role, "content": turn.content} for turn in exchange.messages]
    turns[-1] = {"role": "user", "content": f"{exchange.prompt} {manner.instruction}"}
    return Question(
        tuple(turns),
        lambda text: in_manner(text, exchange, manner),
        f"Answer the prompt again. {manner.instruction}",
    )


def in_manner(text: str, exchange: Exchange, manner: Manner) -> str:
    """The text, if it can stand as the changed response.

    Raises:
        MalformedError: empty, refused, unchanged, or not in the manner by its judge.
    """
    text = text.strip()
    if not text:
        raise MalformedError("empty")
    if _REFUSALS.match(text) and not _REFUSALS.match(exchange.response):
        raise MalformedError("refused")
    if text == exchange.response.strip():
        raise MalformedError("unchanged")
    if manner.shows is not None and not manner.shows(text):
        raise MalformedError("not in the manner")
    return text


def _user(words: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": words},)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " […]"


def _read_about(text: str) -> str:
    value = _field(text, "about")
    if not isinstance(value, bool):
        raise MalformedError("no JSON as asked")
    return YES if value else NO


def _field(text: str, key: str) -> Any:
    """One field of the JSON object in an answer, whatever words or fences stand round it."""
    start, data = text.find("{"), None
    if start >= 0:
        try:
            data, _ = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            raise MalformedError("broken JSON") from None
    if isinstance(data, dict):
        return data.get(key)
    # Short of an object, a model that refuses says so in words.
    raise MalformedError("refused" if _REFUSALS.match(text.strip()) else "no JSON as asked")
