"""Texts in: documents from any common file, as segments with the response marked.

A document is a list of segments so that the same reading serves capture (all tokens) and adapter
training (loss on the response only). Its digest identifies it across splits and runs.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.activations.sources import Tally, kinds_of, read_records
from lorascope.errors import InputError
from lorascope.foreign import repaired

ALPACA_OPENING = (
    "Below is an instruction that describes a task{extra}. Write a response that appropriately "
    "completes the request."
)
# Categories of characters that leave no mark, and letters and symbols that are blank.
_UNSEEN = ("Cc", "Cf", "Cn", "Cs", "Zl", "Zp", "Zs", "Mn", "Me")
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"


@dataclass(frozen=True)
class Segment:
    """A stretch of text; `response` marks what an adapter learns to write."""

    text: str
    response: bool = False


@dataclass(frozen=True)
class Document:
    """One text. `category` is the source's own label, or empty."""

    segments: tuple[Segment, ...]
    category: str = ""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments)

    @property
    def digest(self) -> str:
        """SHA-256 of the text: what decides whether two documents are the same."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def is_blank(self) -> bool:
        """Whether nothing in it can be seen: empty, spaces, zero-width and control characters."""
        return not any(
            unicodedata.category(c) not in _UNSEEN and c not in _BLANKS for c in self.text
        )

    @property
    def has_response(self) -> bool:
        """Whether any part is marked as a response."""
        return any(segment.response for segment in self.segments)

    @property
    def prompt(self) -> str:
        """The text before the first response."""
        parts: list[str] = []
        for segment in self.segments:
            if segment.response:
                break
            parts.append(segment.text)
        return "".join(parts)


def alpaca(record: Mapping[str, Any]) -> Document:
    """An instruction / input / output record in the Alpaca template."""
    given = repaired(str(record.get("input") or "")).strip()
    opening = ALPACA_OPENING.format(
        extra=", paired with an input that provides further context" if given else ""
    )
    prompt = f"{opening}\n\n### Instruction:\n{_words(record, 'instruction').strip()}\n\n"
    if given:
        prompt += f"### Input:\n{given}\n\n"
    prompt += "### Response:\n"
    segments = (Segment(prompt), Segment(_words(record, "output").strip(), response=True))
    return Document(segments, repaired(str(record.get("category") or "")))


def chat(record: Mapping[str, Any]) -> Document:
    """A `messages` record as plain turns; the assistant's turns are responses."""
    segments: list[Segment] = []
    for message in record["messages"]:
        role, content = _words(message, "role"), _words(message, "content")
        segments.append(Segment(f"### {role.capitalize()}:\n"))
        segments.append(Segment(content, response=role == "assistant"))
        segments.append(Segment("\n\n"))
    return Document(tuple(segments[:-1]), str(record.get("category") or ""))


def document(record: Mapping[str, Any], where: str, tally: Tally | None = None) -> Document:
    """A document from one record; the record's keys say which kind it is.

    Null is empty: a record without text gives a document without segments, and a message without
    text (a tool call, a picture) is left out of its chat. Halves of surrogate pairs become U+FFFD.
    Strings that spell special tokens stay as they are, whoever wrote them: the tokenizer reads
    them as these tokens, which are counted and masked.

    Args:
        tally: counts messages left out.

    Raises:
        InputError: a record of no known kind, or malformed.
    """
    category = repaired(str(record.get("category") or ""))
    try:
        if "instruction" in record and "output" in record:
            pair = [_words(record, key).strip() for key in ("instruction", "output")]
            absent = None in (record["instruction"], record["output"])
            return Document((), category) if absent or not any(pair) else alpaca(record)
        if isinstance(record.get("messages"), Sequence | Mapping):
            turns = spoken(record["messages"])
            if tally is not None and turns:
                tally.turns += len(record["messages"]) - len(turns)
            return chat({"messages": turns, "category": category})
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where}: malformed record ({_reason(error)}); mend or remove it"
        ) from None
    for key in ("text", "messages"):
        if key in record and record[key] is None:
            return Document((), category)
    if isinstance(record.get("text"), str):
        return Document((Segment(repaired(record["text"])),), category)
    raise InputError(
        f"{where}: a record needs text, messages, or instruction and output; "
        f"this one has {kinds_of(record)}"
    )


def spoken(messages: Any) -> list[dict[str, str]]:
    """The role and content of each message with a text in it, in order.

    A content of several parts (`[{"type": "text", "text": …}, …]`) is the text of its text parts.

    Raises:
        KeyError, TypeError: a message is malformed.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise TypeError(f"messages is {type(messages).__name__}, not a list")
    found = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise TypeError("a message is no role and content")
        role = _words(message, "role")
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            parts = [p for p in content if isinstance(p, Mapping) and p.get("type") == "text"]
            content = "".join(_words(part, "text") for part in parts)
        text = _words({"content": content}, "content")
        if text.strip():
            found.append({"role": role, "content": text})
    return found


def read_documents(
    sources: str | Sequence[str], limit: int | None = None, tally: Tally | None = None
) -> list[Document]:
    """Documents of one or several sources in order, exact duplicates and empty texts left out.

    Args:
        sources: files (.txt, .jsonl, .json, .parquet, the first three also .gz), folders of them,
            dataset ids (`org/name`, `org/name:split`, `org/name:split[5000:7000]` for some of the
            rows, counted from 0), or "embedded" for the shipped instructions. `~` is the home
            folder.
        limit: stop after so many documents.
        tally: counts what was read and what was left out.

    Raises:
        InputError: a source is missing, unreadable, malformed or holds no text.
    """
    tally = tally if tally is not None else Tally()
    seen: set[str] = set()
    found: list[Document] = []
    for source in [sources] if isinstance(sources, str) else sources:
        before = len(found)
        for where, record in read_records(source, tally):
            tally.records += 1
            if record is None:
                tally.empty += 1
                continue
            if not isinstance(record, Mapping):
                raise InputError(f"{where}: expected keys and values")
            candidate = document(record, where, tally)
            if candidate.is_blank:
                tally.empty += 1
                continue
            digest = candidate.digest
            if digest in seen:
                tally.duplicates += 1
                continue
            seen.add(digest)
            found.append(candidate)
            if limit is not None and len(found) == limit:
                return found
        if len(found) == before:
            raise InputError(f"{source}: holds no text; give texts with at least a few documents")
    return found


def _reason(error: KeyError | TypeError) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _words(record: Mapping[str, Any], key: str) -> str:
    """The text at a key; null is empty."""
    value = record[key]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{key} is {type(value).__name__}, not text")
    return repaired(str(value))
