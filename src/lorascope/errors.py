"""Errors that are the user's to mend: one clear line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The input is wrong. The message says what, where and what to do, in one line."""


class NoNullAdapter(InputError):  # noqa: N818 - it names what there is not
    """No random adapter matches this one. The message says why; the adapter itself is usable."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""
