"""What pydantic found wrong with a value, in this program's words: what it is, and what to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The longest that a value is shown.
_SHOWN = 60
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "frozen": "a list",
    "iterable": "a list",
    "dict": "keys and values",
    "mapping": "keys and values",
    "model": "keys and values",
    "dataclass": "keys and values",
    "none": "null",
    "path": "a path",
    "bytes": "text",
}
_BOUNDS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "int_parsing_size": "a smaller number",
}


def is_of_a_value(problem: Mapping[str, Any]) -> bool:
    """Whether a problem is that of a value of the wrong kind or size, for `said` to tell."""
    return _wanted(problem) is not None


def said(problems: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with one value, as in `is -1; give 0 or more`.

    Args:
        problems: those that pydantic names for it, one for each kind that it might have been.
    """
    return f"is {shown(problems[0]['input'])}; give {expected(problems)}"


def expected(problems: Sequence[Mapping[str, Any]]) -> str:
    """What a value should have been: "text or a list"."""
    return " or ".join(dict.fromkeys(_wanted(one) or _plain(one) for one in problems))


def shown(value: object) -> str:
    """A value as it was written, cut where it is long."""
    written = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return written[value]
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _wanted(problem: Mapping[str, Any]) -> str | None:
    """What should have stood there; None where the problem is not of a value's kind or size."""
    kind, about = str(problem["type"]), problem.get("ctx") or {}
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**{name: _short(value) for name, value in about.items()})
    if kind in ("literal_error", "enum"):
        return str(about["expected"])
    first, _, rest = kind.partition("_")
    of_a_kind = rest.startswith(("type", "parsing", "from_float", "attributes", "required"))
    if of_a_kind or kind in ("finite_number", "frozen_set_type"):
        return _KINDS.get(first)
    return None


def _short(value: object) -> object:
    """Whole numbers without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text.removeprefix("Input should be ")
