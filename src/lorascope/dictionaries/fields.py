"""Configurations of others, read strictly: a value of another kind than meant is refused.

A string is never taken for a boolean, true never for the number 1, and no number is infinite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.dictionaries.limits import LONGEST_TEXT, plain_file, reason
from lorascope.errors import InputError

_LONGEST_NAME = 300


class Fields:
    """Keys and values of one configuration; null counts as absent.

    Args:
        found: the values as JSON has them.
        where: names the file, and the key inside it, in every refusal.
    """

    def __init__(self, found: Mapping[str, Any], where: str) -> None:
        self._found = {key: value for key, value in found.items() if value is not None}
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def raw(self, key: str) -> Any:
        """The value as it stands; None where it is absent."""
        return self._found.get(key)

    def over(self, changed: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> Fields:
        """These fields with older keys renamed, and others laid over them."""
        names = renamed or {}
        return Fields(
            {**{names.get(k, k): v for k, v in self._found.items()}, **changed}, self.where
        )

    def everything(self) -> dict[str, Any]:
        """All keys and values that are not null."""
        return dict(self._found)

    def text(self, key: str, default: str = "") -> str:
        """A word or a name: one line of at most 300 characters."""
        found = self._found.get(key, default)
        if not isinstance(found, str) or len(found) > _LONGEST_NAME or not found.isprintable():
            raise self.refusal(key, f"a text of one line and at most {_LONGEST_NAME} characters")
        return found

    def flag(self, key: str, default: bool) -> bool:
        """True or false; the word "false" is neither."""
        found = self._found.get(key, default)
        if not isinstance(found, bool):
            raise self.refusal(key, "true or false")
        return found

    def whole(self, key: str, least: int = 1) -> int | None:
        """A whole number of at least `least`; None where it is absent."""
        found = self._found.get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise self.refusal(key, f"a whole number of at least {least}")
        return found

    def number(self, key: str, *, above: float = -math.inf) -> float | None:
        """A finite number greater than `above`; None where it is absent."""
        found = self._found.get(key)
        if found is None:
            return None
        try:
            value = math.nan if isinstance(found, bool | str) else float(found)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value) or not value > above:
            kind = "a finite number" + ("" if above == -math.inf else f" above {above:g}")
            raise self.refusal(key, kind)
        return value

    def inner(self, key: str) -> Fields:
        """The keys and values that stand under a key; none where it is absent."""
        found = self._found.get(key, {})
        if not isinstance(found, dict):
            raise self.refusal(key, "keys and values")
        return Fields(found, f"{self.where}, {key}")

    def sizes(self, tensors: Mapping[str, int]) -> None:
        """Refuse declared sizes that the tensors contradict.

        Args:
            tensors: by the key that declares a size, the size the tensors have.
        """
        for key, size in tensors.items():
            said = self.whole(key, least=0)
            if said is not None and said != size:
                raise InputError(
                    f"{self.where}: {key} is {said}, and the tensors beside it have {size}; the "
                    "two do not belong together; fetch both again"
                )

    def refusal(self, key: str, expected: str) -> InputError:
        """The one line for a value of the wrong kind."""
        return InputError(
            f"{self.where}: {key} is {shown(self._found.get(key))}, expected {expected}; "
            "fetch it again"
        )


def settings(path: Path) -> Fields:
    """The keys and values of a JSON file.

    Raises:
        InputError: it is missing, no plain file, too long, broken, or holds something else.
    """
    try:
        length = plain_file(path)
        if length > LONGEST_TEXT:
            raise InputError(f"{path}: {length:,} bytes are no configuration; fetch it again")
        found = json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, and the weights beside it cannot be read without it; fetch it"
        ) from None
    except Exception as error:  # nesting too deep, numbers too long, no memory
        raise InputError(
            f"{path}: not readable as JSON ({reason(error)}); fetch it again"
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected keys and values; fetch it again")
    return Fields(found, str(path))


def shown(value: object) -> str:
    """A foreign value for a message, cut to a length one can read."""
    try:
        text = repr(value)
    except Exception:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."
