"""What a behaviour set is made from: prompts with the responses they had.

Alpaca records (instruction, input, output), chat `messages`, and rows with prompt and response as
in HelpSteer, of which the best-rated response to each prompt is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.activations.sources import read_records
from lorascope.activations.text import spoken
from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.errors import InputError

_KINDS = "instruction and output, messages, or prompt and response"


@dataclass(frozen=True)
class Exchange:
    """A conversation up to the user's last words, and the response it had.

    Attributes:
        category: the source's own label, or empty.
        rating: how good the source says the response is; the best of a prompt is kept.
    """

    messages: tuple[Turn, ...]
    response: str
    category: str = ""
    rating: float = 0.0

    @property
    def prompt(self) -> str:
        """The user's last words."""
        return self.messages[-1].content

    @property
    def key(self) -> str:
        """Hash of the conversation, the same as that of the record made from it."""
        return self.record(self.response, changed=False, split="train").key

    def record(self, response: str, **fields: Any) -> BehaviourRecord:
        """A record of this conversation."""
        return BehaviourRecord(messages=self.messages, response=response, **fields)


def read_exchanges(sources: Sequence[str], limit: int | None = None) -> list[Exchange]:
    """One exchange for every different prompt of the sources, in order.

    Args:
        sources: files, folders, dataset ids or "embedded", as for texts elsewhere.
        limit: most prompts to read.

    Raises:
        InputError: a source is missing, unreadable, malformed or holds no prompt with a response.
    """
    found: dict[str, Exchange] = {}
    for source in sources:
        before = len(found)
        for where, record in read_records(source):
            made = exchange(record, where)
            if made is None:
                continue
            key = made.key
            if key not in found and len(found) == limit:
                break
            if key not in found or made.rating > found[key].rating:
                found[key] = made
        if len(found) == before and len(found) != limit:
            raise InputError(f"{source}: holds no prompt with a response; records need {_KINDS}")
    return list(found.values())


def exchange(record: Any, where: str) -> Exchange | None:
    """The exchange of one record; None where prompt or response is empty, or null.

    Raises:
        InputError: a record of no known kind, or malformed.
    """
    if record is None:
        return None
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: expected keys and values")
    category = str(record.get("category") or "")
    if "instruction" in record and "output" in record:
        given = _text(record, "input", where) if record.get("input") else ""
        prompt = "\n\n".join(part for part in (_text(record, "instruction", where), given) if part)
        turns, response = [("user", prompt)], _text(record, "output", where)
    elif "messages" in record:
        if record["messages"] is None:
            return None
        turns, response = _conversation(record["messages"], where)
    elif "prompt" in record and "response" in record:
        turns = [("user", _text(record, "prompt", where))]
        response = _text(record, "response", where)
    else:
        keys = ", ".join(sorted(map(str, record))) or "no keys"
        raise InputError(f"{where}: a record needs {_KINDS}; this one has {keys}")
    if not response or not turns or turns[-1][0] != "user" or not turns[-1][1]:
        return None
    messages = tuple(Turn(role=role, content=content) for role, content in turns)
    return Exchange(messages, response, category, _rating(record))


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is {type(value).__name__}, not text; mend or remove it")
    return value.strip()


def _conversation(messages: Any, where: str) -> tuple[list[tuple[str, str]], str]:
    """The turns before the assistant's last one, and that one; those without text are left out."""
    try:
        spoken_turns = spoken(messages)
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: malformed record ({error}); mend or remove it") from None
    turns = [(turn["role"].strip(), turn["content"].strip()) for turn in spoken_turns]
    last = max((i for i, (role, _) in enumerate(turns) if role == "assistant"), default=0)
    return turns[:last], turns[last][1] if last else ""


def _rating(record: Mapping[str, Any]) -> float:
    """HelpSteer's grades, helpfulness first; 0 where there are none."""
    grades = (record.get("helpfulness"), record.get("correctness"))
    if not all(isinstance(grade, int | float) for grade in grades):
        return 0.0
    helpful, correct = (float(grade) for grade in grades if grade is not None)
    return helpful + correct / 100
