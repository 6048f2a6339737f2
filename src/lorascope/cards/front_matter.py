"""The YAML at the head of a model card, changed in its own lines alone.

Everything that is not replaced stays byte for byte: comments, order and quotes of the author.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from lorascope.errors import InputError

_FENCE = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE | re.DOTALL)
INDEX = "model-index"


def split(text: str) -> tuple[str, str]:
    """The lines between the fences, empty where there are none, and all that follows."""
    found = _FENCE.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def joined(front: str, body: str) -> str:
    """The card again."""
    return f"---\n{front}---\n{body}" if front else body


def fields(front: str, file: object) -> dict[str, Any]:
    """What the lines say.

    Raises:
        InputError: they are no YAML of keys and values.
    """
    try:
        found = yaml.safe_load(front) if front.strip() else {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file}: its metadata is no valid YAML ({reason}): mend it") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: its metadata holds no keys and values: mend it")
    return found


def with_missing(front: str, known: dict[str, Any], values: dict[str, Any]) -> str:
    """Add the values whose keys are not there."""
    new = {key: value for key, value in values.items() if key not in known}
    return front + _dumped(new) if new else front


def with_index(
    front: str,
    known: dict[str, Any],
    entry: dict[str, Any],
    ours: Callable[[dict[str, Any]], bool],
    file: object,
) -> str:
    """Put an entry's results into `model-index`, in place of those that were ours before.

    Args:
        known: what `front` says.
        entry: {"name", "results"}.
        ours: whether a result was written by this.

    Raises:
        InputError: the index is not of the form that the hub asks for.
    """
    index = known.get(INDEX)
    entries: list[dict[str, Any]] = [] if index is None else index
    try:
        kept = [{**one, "results": [r for r in one["results"] if not ours(r)]} for one in entries]
    except (TypeError, KeyError, AttributeError):
        raise InputError(
            f"{file}: its {INDEX} is no list of names with results, as the hub asks for: mend it"
        ) from None
    same = next((one for one in kept if one.get("name") == entry["name"]), None)
    if same is None:
        kept.append(entry)
    else:
        same["results"] = [*same["results"], *entry["results"]]
    block = _dumped({INDEX: [one for one in kept if one["results"]]})
    begin, end = _place(front)
    return front[:begin] + block + front[end:]


def _place(front: str) -> tuple[int, int]:
    """Where the index stands: from its key to the next key of the top level, or the end."""
    found = re.search(rf"^(?:{INDEX}|['\"]{INDEX}['\"])[ \t]*:", front, re.MULTILINE)
    if found is None:
        return len(front), len(front)
    rest = re.compile(r"^(?![ \t\r\n]|- |-$)", re.MULTILINE).search(front, found.end() + 1)
    return found.start(), rest.start() if rest and front[found.end() :].strip() else len(front)


def _dumped(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
