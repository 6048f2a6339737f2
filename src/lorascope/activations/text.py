"""Texts in: documents from any common file, as segments with the response marked.

A document is a list of segments so that the same reading serves capture (all tokens) and adapter
training (loss on the response only). Its digest identifies it across splits and runs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.errors import InputError, did_you_mean

ALPACA_OPENING = (
    "Below is an instruction that describes a task{extra}. Write a response that appropriately "
    "completes the request."
)
READABLE = (".txt", ".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz", ".txt.gz")


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
    given = str(record.get("input") or "").strip()
    opening = ALPACA_OPENING.format(
        extra=", paired with an input that provides further context" if given else ""
    )
    prompt = f"{opening}\n\n### Instruction:\n{_words(record, 'instruction').strip()}\n\n"
    if given:
        prompt += f"### Input:\n{given}\n\n"
    prompt += "### Response:\n"
    segments = (Segment(prompt), Segment(_words(record, "output").strip(), response=True))
    return Document(segments, str(record.get("category") or ""))


def chat(record: Mapping[str, Any]) -> Document:
    """A `messages` record as plain turns; the assistant's turns are responses."""
    segments: list[Segment] = []
    for message in record["messages"]:
        role, content = _words(message, "role"), _words(message, "content")
        segments.append(Segment(f"### {role.capitalize()}:\n"))
        segments.append(Segment(content, response=role == "assistant"))
        segments.append(Segment("\n\n"))
    return Document(tuple(segments[:-1]), str(record.get("category") or ""))


def _reason(error: KeyError | TypeError) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _words(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str | int | float):
        raise TypeError(f"{key} is {type(value).__name__}, not text")
    return str(value)


def document(record: Mapping[str, Any], where: str) -> Document:
    """A document from one record; the record's keys say which kind it is."""
    try:
        if "instruction" in record and "output" in record:
            return alpaca(record)
        if record.get("messages"):
            return chat(record)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where}: malformed record ({_reason(error)}); mend or remove it"
        ) from None
    if isinstance(record.get("text"), str):
        return Document((Segment(record["text"]),), str(record.get("category") or ""))
    raise InputError(
        f"{where}: a record needs text, messages, or instruction and output; "
        f"this one has {', '.join(sorted(map(str, record))) or 'no keys'}"
    )


def read_documents(sources: str | Sequence[str], limit: int | None = None) -> list[Document]:
    """Documents of one or several sources in order, exact duplicates and empty texts left out.

    Args:
        sources: files (.txt, .jsonl, .json, .parquet, the first three also .gz), folders of them,
            dataset ids (`org/name`, `org/name:split`, `org/name:split[5000:7000]` for some of the
            rows, counted from 0), or "embedded" for the shipped instructions.
        limit: stop after so many documents.

    Raises:
        InputError: a source is missing, unreadable, malformed or holds no text.
    """
    seen: set[str] = set()
    found: list[Document] = []
    for source in [sources] if isinstance(sources, str) else sources:
        before = len(found)
        for candidate in _documents(read_records(source)):
            if not candidate.text.strip() or candidate.digest in seen:
                continue
            seen.add(candidate.digest)
            found.append(candidate)
            if limit is not None and len(found) == limit:
                return found
        if len(found) == before:
            raise InputError(f"{source}: holds no text; give texts with at least a few documents")
    return found


def read_records(source: str) -> Iterator[tuple[str, Any]]:
    """(where it stands, record) of everything in one source, as it was written.

    Args:
        source: as for `read_documents`; a text file is one record, {"text": …}.

    Raises:
        InputError: the source is missing or unreadable.
    """
    path = Path(source)
    if source == "embedded":
        from lorascope.embedded import instructions_path

        path = instructions_path()
    if path.is_dir():
        files = [f for f in sorted(path.iterdir()) if f.name.endswith(READABLE)]
        if not files:
            raise InputError(f"{source}: no readable files in it ({', '.join(READABLE)})")
        for file in files:
            yield from _read_file(file)
    elif path.is_file():
        yield from _read_file(path)
    elif source.count("/") == 1 and not source.startswith((".", "/")):
        yield from _read_dataset(source)
    else:
        siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(source, siblings)
        raise InputError(f"{source}: no such file or folder.{hint} Give a path that exists")


def _read_file(path: Path) -> Iterator[tuple[str, Any]]:
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as parquet

            yield from _numbered(parquet.read_table(path).to_pylist(), path)
            return
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            if name.endswith(".txt"):
                yield str(path), {"text": file.read()}
            elif name.endswith(".jsonl"):
                yield from _json_lines(file, path)
            elif name.endswith(".json"):
                yield from _numbered(_json_records(json.load(file), path), path)
            else:
                raise InputError(f"{path}: unknown kind of file; readable: {', '.join(READABLE)}")
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read ({first}); mend or replace the file") from None


def _json_lines(lines: Iterable[str], path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError:
            raise InputError(f"{where}: not valid JSON; mend the line") from None
        yield where, record


def _json_records(data: Any, path: Path) -> list[Any]:
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if len(lists) == 1 and not _is_record(data) else [data]
    if not isinstance(data, list):
        raise InputError(f"{path}: expected a list of records")
    return [{"text": item} if isinstance(item, str) else item for item in data]


def _is_record(data: Mapping[str, Any]) -> bool:
    return "messages" in data or "instruction" in data or isinstance(data.get("text"), str)


def _numbered(records: Iterable[Any], path: Path) -> Iterator[tuple[str, Any]]:
    for number, record in enumerate(records, start=1):
        yield f"{path}, record {number}", record


def _documents(records: Iterable[tuple[str, Any]]) -> Iterator[Document]:
    for where, record in records:
        if not isinstance(record, Mapping):
            raise InputError(f"{where}: expected keys and values")
        yield document(record, where)


def _read_dataset(source: str) -> Iterator[tuple[str, Any]]:
    import datasets

    name, _, split = source.partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{source}: neither a file here nor a dataset that opens ({first}); "
            "check the path, the dataset id and the network"
        ) from None
    for number, record in enumerate(rows, start=1):
        yield f"{source}, record {number}", record
