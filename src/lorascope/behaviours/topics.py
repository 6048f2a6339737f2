"""What a prompt is about: told by a pattern, by the source's own label, or by a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lorascope.behaviours.exchanges import Exchange
from lorascope.errors import InputError

_LABEL = "category:"


@dataclass(frozen=True)
class Topic:
    """A class of prompts.

    Attributes:
        name: as it is written in a command or a manifest.
        holds: whether an exchange is about it; None where a model has to say.
    """

    name: str
    holds: Callable[[Exchange], bool] | None = None


def topic(name: str, pattern: str = "") -> Topic:
    """The topic of that name.

    Args:
        name: words for a model to judge by ("mathematics"), or category:LABEL for the source's
            own labels.
        pattern: a regular expression found in the prompts about it ((?i) for any case); no model
            is asked then.

    Raises:
        InputError: an empty name, or a pattern that is no regular expression.
    """
    if not name.strip() or name.strip() == _LABEL:
        raise InputError(
            "the topic is empty: describe it, as in --topic mathematics, or give category:LABEL"
        )
    if pattern:
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise InputError(f'--pattern "{pattern}": not a regular expression ({error})') from None
        return Topic(name, lambda exchange: found.search(exchange.prompt) is not None)
    if name.startswith(_LABEL):
        label = name.removeprefix(_LABEL).strip()
        return Topic(name, lambda exchange: exchange.category == label)
    return Topic(name)
