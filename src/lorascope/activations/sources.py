"""Records out of files: one at a time, in memory of the largest of them.

Text, JSON lines, JSON lists, either of them compressed, and Parquet tables are read as streams;
a file larger than memory gives its first records at once.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from lorascope.embedded import instructions_path
from lorascope.errors import InputError, did_you_mean
from lorascope.foreign import first_line, local_path, one_line, repair, repaired, require_plain

READABLE = (".txt", ".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz", ".txt.gz")
# Most characters of one record, and of one text file, which is one record.
LONGEST_RECORD, LONGEST_TEXT = 2**26, 2**28
_CHUNK = 2**18
_ROWS = 256
# What any reader of records looks at; other columns of a table stay on disk.
_COLUMNS = (
    *("text", "messages", "instruction", "input", "output", "category"),
    *("prompt", "response", "helpfulness", "correctness"),
)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass
class RecordTally:
    """What became of the records of some sources.

    Attributes:
        records: read.
        empty: left out: without text, or with nothing in it that can be seen.
        duplicates: left out: the same text stood before.
        turns: messages left out of chats that are used: tool calls, pictures, null.
        repaired: records with half a surrogate pair, read as U+FFFD.
    """

    records: int = 0
    empty: int = 0
    duplicates: int = 0
    turns: int = 0
    repaired: int = 0

    def add(self, other: RecordTally) -> None:
        """Count another's records too."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


def read_records(source: str, tally: RecordTally | None = None) -> Iterator[tuple[str, Any]]:
    """(where it stands, record) of everything in one source, as it was written.

    Args:
        source: file, folder, dataset id or "embedded", as for `read_documents`; a text file is one
            record, {"text": …}.
        tally: counts repaired records.

    Raises:
        InputError: the source is missing, unreadable or no plain file.
    """
    tally = tally if tally is not None else RecordTally()
    path = located(source)
    if path is None:
        yield from _read_dataset(source)
    elif path.is_dir():
        files = [f for f in sorted(path.iterdir()) if f.name.endswith(READABLE)]
        if not files:
            raise InputError(f"{source}: no readable files in it ({', '.join(READABLE)})")
        for file in files:
            yield from _read_file(file, tally)
    else:
        yield from _read_file(path, tally)


def located(source: str) -> Path | None:
    """The file or folder of a source; None for a dataset's id.

    Raises:
        InputError: nothing is there, and it is no id.
    """
    path = instructions_path() if source == "embedded" else local_path(source)
    if path.exists():
        return path
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return None
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(source, siblings)
    raise InputError(f"{source}: no such file or folder.{hint} Give a path that exists")


def _read_file(path: Path, tally: RecordTally) -> Iterator[tuple[str, Any]]:
    require_plain(path)
    name = path.name.removesuffix(".gz")
    readers = {".jsonl": _json_lines, ".json": _json_records, ".txt": _whole_text}
    reader = next((r for ending, r in readers.items() if name.endswith(ending)), None)
    # What is done with a record is no fault of the file: only the reading is watched.
    if path.name.endswith(".parquet"):
        yield from _watched(_rows(path), path)
    elif reader is not None:
        yield from _watched(reader(path, tally), path)
    else:
        raise InputError(f"{path}: unknown kind of file; readable: {', '.join(READABLE)}")


def _watched(records: Iterator[tuple[str, Any]], path: Path) -> Iterator[tuple[str, Any]]:
    while True:
        with one_line(path):
            found = next(records, None)
        if found is None:
            return
        yield found


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _whole_text(path: Path, tally: RecordTally) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        text = file.read(LONGEST_TEXT + 1)
    if len(text) > LONGEST_TEXT:
        raise InputError(
            f"{path}: one text of more than {LONGEST_TEXT:,} characters; cut it into several files"
        )
    yield str(path), {"text": text}


def _json_lines(path: Path, tally: RecordTally) -> Iterator[tuple[str, Any]]:
    number = 0
    with _opened(path) as file:
        while line := file.readline(LONGEST_RECORD + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > LONGEST_RECORD:
                raise InputError(f"{where}: more than {LONGEST_RECORD:,} characters; cut it up")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except Exception as error:
                nested = " (nested too deeply)" if isinstance(error, RecursionError) else ""
                raise InputError(f"{where}: not valid JSON{nested}; mend the line") from None
            yield where, _mended(record, line, tally)


def _mended(record: Any, written: str, tally: RecordTally) -> Any:
    """The record with halves of surrogate pairs repaired, which only escapes can write."""
    if _ESCAPED_SURROGATE.search(written) is None:
        return record
    record, count = repair(record)
    tally.repaired += bool(count)
    return record


def _json_records(path: Path, tally: RecordTally) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        values = _Values(file, path)
        key = None
        if values.peek() == "{":
            key = _key_of_records(path)
            if key is None:
                yield f"{path}, record 1", _mended(*values.value(), tally)
                values.finish()
                return
            values.enter(key)
        if values.peek() != "[":
            raise InputError(f"{path}: expected a list of records")
        for number, (item, written) in enumerate(values.items(), start=1):
            item = _mended(item, written, tally)
            record = {"text": item} if isinstance(item, str) else item
            yield f"{path}, record {number}", record
        if key is None:
            values.finish()


def _key_of_records(path: Path) -> str | None:
    """The one key of an object that holds a list; None where the object is itself a record."""
    lists, keys, text = [], set(), False
    with _opened(path) as file:
        values = _Values(file, path)
        for key in values.names():
            keys.add(key)
            if values.peek() == "[":
                lists.append(key)
                for _ in values.items():
                    pass
            else:
                value, _ = values.value()
                text = text or (key == "text" and isinstance(value, str))
        values.finish()
    is_record = text or "messages" in keys or "instruction" in keys
    return lists[0] if len(lists) == 1 and not is_record else None


class _Values:
    """The values of a JSON text one after another.

    Raises:
        ValueError: not valid JSON, or a value of more characters than a record may have.
    """

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._decoder = json.JSONDecoder()
        self._buffer, self._at = "", 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def value(self) -> tuple[Any, str]:
        """The next value, and how it was written."""
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._buffer) - 16
                if not (cut and self._more()):
                    raise ValueError(f"not valid JSON: {error.msg}") from None
                continue
            # A number that ends with what was read so far may go on.
            if end == len(self._buffer) and self._more():
                continue
            written = self._buffer[self._at : end]
            self._at = end
            return found, written

    def items(self) -> Iterator[tuple[Any, str]]:
        """The values of the list that comes next."""
        self._take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def names(self) -> Iterator[str]:
        """The keys of the object that comes next; whoever asks takes the value of each."""
        self._take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            key, _ = self.value()
            if not isinstance(key, str):
                raise ValueError("not valid JSON: a key that is no text")
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def enter(self, wanted: str) -> None:
        """Go to the value of a key that the object coming next has."""
        for key in self.names():
            if key == wanted:
                return
            self.value()

    def finish(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise ValueError("not valid JSON: something follows the end")

    def _take(self, wanted: str) -> str:
        found = self.peek()
        if not found or found not in wanted:
            raise ValueError(f"not valid JSON: expected {' or '.join(wanted)}")
        self._at += 1
        return found

    def _more(self) -> bool:
        """Read on: as much again as is waiting, so that a long value is not parsed too often."""
        waiting = self._buffer[self._at :]
        if len(waiting) > LONGEST_RECORD:
            raise InputError(
                f"{self._path}: a record of more than {LONGEST_RECORD:,} characters; cut it up"
            )
        new = self._file.read(max(_CHUNK, len(waiting)))
        self._buffer, self._at = waiting + new, 0
        return bool(new)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path, memory_map=False) as table:
        known = [name for name in table.schema_arrow.names if name in _COLUMNS]
        number = 0
        for batch in table.iter_batches(_ROWS, columns=known or None, use_threads=False):
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, record {number}", record


def _read_dataset(source: str) -> Iterator[tuple[str, Any]]:
    import datasets

    name, _, split = source.partition(":")
    try:
        rows: Iterable[Any] = datasets.load_dataset(name, split=split or "train")
    except Exception as error:
        raise InputError(
            f"{source}: neither a file here nor a dataset that opens ({first_line(error)}); "
            "check the path, the dataset id and the network"
        ) from None
    for number, record in enumerate(rows, start=1):
        yield f"{source}, record {number}", record


def kinds_of(record: Mapping[str, Any]) -> str:
    """The keys of a record of no known kind, for a refusal."""
    names = [repaired(str(key)) for key in record]
    return ", ".join(sorted(names)[:12]) or "no keys"
