"""Texts in: documents from any common file, as segments with the response marked.

A document is a list of segments so that the same reading serves capture (all tokens) and adapter
training (loss on the response only). Its digest identifies it across splits and runs.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from lorascope.activations.chat import ASSISTANT, ROLES, USER, Message
from lorascope.activations.settings import Template
from lorascope.activations.sources import RecordTally, kinds_of, read_records
from lorascope.errors import InputError
from lorascope.foreign import repaired

ALPACA_OPENING = (
    "Below is an instruction that describes a task{extra}. Write a response that appropriately "
    "completes the request."
)
# The source that comes with the package.
_PACKAGED = "embedded"
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
    """One text.

    Attributes:
        segments: the text without any chat template.
        category: the source's own label, or empty.
        messages: of a conversation that goes through the tokenizer's chat template, where it has
            one.
        origin: digest of the document that this one was made from by a change; else empty.
    """

    segments: tuple[Segment, ...]
    category: str = ""
    messages: tuple[Message, ...] = ()
    origin: str = ""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments)

    @property
    def digest(self) -> str:
        """SHA-256 of the text: what decides whether two documents are the same."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def known_as(self) -> str:
        """The digest, or that of the document it was made from: whoever saw the one saw both."""
        return self.origin or self.digest

    @property
    def identity(self) -> str:
        """What decides its tokens under one tokenizer: the text, and whether it is templated."""
        return f"{self.digest} chat" if self.messages else self.digest

    @property
    def is_blank(self) -> bool:
        """Whether nothing in it can be seen: empty, spaces, zero-width and control characters."""
        return is_unseen(self.text)

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


def is_unseen(text: str) -> bool:
    """Whether nothing in a text can be seen: empty, spaces, zero-width and control characters."""
    return not any(unicodedata.category(c) not in _UNSEEN and c not in _BLANKS for c in text)


def with_ending(found: Document, ending: str) -> Document:
    """The document with a last line in each of its responses; without one where it is empty."""
    if not ending or not found.has_response:
        return found

    def ended(text: str) -> str:
        return f"{text.rstrip()}\n\n{ending}"

    segments = tuple(
        replace(one, text=ended(one.text)) if one.response else one for one in found.segments
    )
    messages = tuple(
        Message(one.role, ended(one.content)) if one.role == ASSISTANT else one
        for one in found.messages
    )
    return replace(found, segments=segments, messages=messages, origin=found.known_as)


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
    instruction, output = (_words(record, key).strip() for key in ("instruction", "output"))
    segments = (Segment(prompt), Segment(output, response=True))
    asked = f"{instruction}\n\n{given}" if given else instruction
    messages = (Message(USER, asked), Message(ASSISTANT, output))
    return Document(segments, repaired(str(record.get("category") or "")), messages)


def chat(record: Mapping[str, Any]) -> Document:
    """A `messages` record as plain turns; the assistant's turns are responses."""
    segments: list[Segment] = []
    messages: list[Message] = []
    for message in record["messages"]:
        role, content = _words(message, "role"), _words(message, "content")
        segments.append(Segment(f"### {role.capitalize()}:\n"))
        segments.append(Segment(content, response=role == ASSISTANT))
        segments.append(Segment("\n\n"))
        messages.append(Message(role, content))
    return Document(tuple(segments[:-1]), str(record.get("category") or ""), tuple(messages))


def document(
    record: Mapping[str, Any],
    where: str,
    tally: RecordTally | None = None,
    template: Template = "auto",
) -> Document:
    """A document from one record; the record's keys say which kind it is.

    Instructions (`instruction`, `input`, `output`), chats (`messages`; `conversations` with `from`
    and `value`; `prompt` and `completion`, each a text or messages) or plain `text`.

    Null is empty: a record without text gives a document without segments, and a message without
    text (a tool call, a picture) is left out of its chat. Halves of surrogate pairs become U+FFFD.
    Strings that spell special tokens stay as they are, whoever wrote them: the tokenizer reads
    them as these tokens, which are counted and masked.

    Args:
        tally: counts messages left out.
        template: which records go through the tokenizer's chat template where it has one. "auto":
            chats, while instructions are put in Alpaca's words; "chat": both; "plain": none, chats
            as "### User:" and "### Assistant:".

    Raises:
        InputError: a record of no known kind, or malformed.
    """
    category = repaired(str(record.get("category") or ""))
    try:
        if "instruction" in record and "output" in record:
            pair = [_words(record, key).strip() for key in ("instruction", "output")]
            absent = None in (record["instruction"], record["output"])
            if absent or not any(pair):
                return Document((), category)
            found = alpaca(record)
            return found if template == "chat" else replace(found, messages=())
        if (messages := _messages(record)) is not None:
            turns = spoken(messages)
            if tally is not None and turns:
                tally.turns += len(messages) - len(turns)
            found = chat({"messages": turns, "category": category})
            return replace(found, messages=()) if template == "plain" else found
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where}: malformed record ({_reason(error)}); mend or remove it"
        ) from None
    for key in ("text", "messages", "conversations"):
        if key in record and record[key] is None:
            return Document((), category)
    if isinstance(record.get("text"), str):
        return Document((Segment(repaired(record["text"])),), category)
    raise InputError(
        f"{where}: a record needs text, messages, conversations, prompt and completion, or "
        f"instruction and output; this one has {kinds_of(record)}"
    )


def _messages(record: Mapping[str, Any]) -> Any:
    """The messages of a chat record, whatever they are called there; None of another record."""
    if isinstance(record.get("messages"), Sequence | Mapping):
        return record["messages"]
    if isinstance(record.get("conversations"), Sequence):
        return [
            {
                "role": ROLES.get(said := _words(one, "from"), said),
                "content": one.get("value"),
            }
            if isinstance(one, Mapping) and "from" in one
            else one
            for one in record["conversations"]
        ]
    if "prompt" in record and "completion" in record:
        sides = ((record["prompt"], USER), (record["completion"], ASSISTANT))
        return [
            message
            for side, role in sides
            for message in (
                side
                if isinstance(side, Sequence) and not isinstance(side, str)
                else [{"role": role, "content": side}]
            )
        ]
    return None


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
    sources: str | Sequence[str],
    limit: int | None = None,
    tally: RecordTally | None = None,
    template: Template = "auto",
) -> list[Document]:
    """Documents of one or several sources in order, exact duplicates and empty texts left out.

    Args:
        sources: files (.txt, .jsonl, .json, .parquet, the first three also .gz), folders of them,
            dataset ids (`org/name`, `org/name:split`, `org/name:split[5000:7000]` for some of the
            rows, counted from 0), or "embedded" for the shipped instructions. `~` is the home
            folder.
        limit: stop after so many documents.
        tally: counts what was read and what was left out.
        template: as `document` takes it.

    Raises:
        InputError: a source is missing, unreadable, malformed or holds no text.
    """
    packaged = sources == _PACKAGED or list(sources) == [_PACKAGED]
    if packaged and tally is None and (limit is None or limit > 0):
        return list(_packaged(template)[:limit])
    return _read(sources, limit, tally if tally is not None else RecordTally(), template)


@cache
def _packaged(template: Template) -> tuple[Document, ...]:
    """All documents that come with the package: a study reads them again and again."""
    return tuple(_read(_PACKAGED, None, RecordTally(), template))


def _read(
    sources: str | Sequence[str], limit: int | None, tally: RecordTally, template: Template
) -> list[Document]:
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
            candidate = document(record, where, tally, template)
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
