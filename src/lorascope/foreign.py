"""Reading others' files: plain files only, size limits first, and one clear line for any fault."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lorascope.errors import InputError

# Settings and cards are a few kilobytes; records of finished runs can be long.
YAML_BYTES = 2**20
JSON_BYTES = 2**30
# Aliases and all: what a YAML text comes to once it is written out.
_YAML_VALUES = 100_000
_YAML_DEPTH = 64
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_HALF_BYTES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def first_line(error: BaseException) -> str:
    """What an error says, in one short line; its kind where it says nothing."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextmanager
def one_line(where: object, advice: str = "mend or replace the file") -> Iterator[None]:
    """Within the `with`, whatever a parser raises becomes one line that names `where`.

    Raises:
        InputError: in place of any other exception.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where}: cannot be read ({first_line(error)}); {advice}") from None


def local_path(text: str | Path) -> Path:
    """A path as a person writes it: `~` is the home folder, where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def require_plain(path: Path) -> None:
    """Refuse what is no plain file at once: reading a pipe or a device may never end.

    Raises:
        InputError: it is a folder, pipe, socket or device. One that is missing passes.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # whoever opens it says why
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "no plain file")
        raise InputError(f"{path}: is {kind}; give a plain file")


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a plain file of at most `most` bytes.

    Raises:
        InputError: it is no plain file, or larger.
        OSError: it cannot be opened or read.
    """
    require_plain(path)
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise InputError(f"{path}: has {size:,} bytes, at most {most:,} are read; is it this?")
        return file.read(most)


def repaired(text: str) -> str:
    """Text that can be encoded: halves of surrogate pairs are joined, lone ones become U+FFFD."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def repair(data: Any) -> tuple[Any, int]:
    """Plain data with every text `repaired`, and how many texts were."""
    if isinstance(data, str):
        text = repaired(data)
        return text, int(text is not data)
    if isinstance(data, list):
        pairs = [repair(item) for item in data]
        return [item for item, _ in pairs], sum(count for _, count in pairs)
    if isinstance(data, dict):
        values = {repaired(key): repair(value) for key, value in data.items()}
        counts = sum(count for _, count in values.values())
        return {key: value for key, (value, _) in values.items()}, counts
    return data, 0


def parse_json(text: str | bytes, where: object, advice: str = "mend the file") -> Any:
    """The value of a JSON text, its texts `repaired`.

    Raises:
        InputError: it is not valid, or nested too deeply.
    """
    try:
        data = json.loads(text)
    except Exception as error:
        raise InputError(f"{where}: not readable as JSON ({first_line(error)}); {advice}") from None
    return repair(data)[0] if _may_hold_halves(text) else data


def _may_hold_halves(text: str | bytes) -> bool:
    """Whether a JSON text may hold half a surrogate pair, as it stands or as an escape."""
    if isinstance(text, str):
        return _HALF.search(text) is not None
    # A zero byte stands in encodings of two or four bytes a character.
    return b"\0" in text or _HALF_BYTES.search(text) is not None


# The key "<<", which may stand more than once.
_MERGE = "tag:yaml.org,2002:merge"


class _NoTwins(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which one value would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping of a node."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f'"{key.value}" stands twice', problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: object) -> Any:
    """The value of a YAML text.

    Raises:
        InputError: it is not valid, nested too deeply, or too large once its aliases are written
            out.
    """
    try:
        _require_small(text)
        return yaml.load(text, _NoTwins)
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark and "\n" in text.strip() else str(where)
        first = getattr(error, "problem", None) or first_line(error)
        raise InputError(f"{place}: not valid YAML ({first}); mend it") from None


def _require_small(text: str) -> None:
    """Refuse, before anything is built, what would be deep or large."""
    sizes: dict[str, int] = {}
    # What has been opened and not yet closed: its anchor, and the values in it so far.
    opened: list[tuple[str | None, int]] = [(None, 0)]

    def add(anchor: str | None, size: int) -> None:
        before, count = opened[-1]
        opened[-1] = (before, count + size)
        if anchor is not None:
            sizes[anchor] = size
        if count + size > _YAML_VALUES:
            raise ValueError(f"more than {_YAML_VALUES:,} values with its aliases written out")

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1))
            if len(opened) > _YAML_DEPTH:
                raise ValueError("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            add(*opened.pop())
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias {event.anchor} stands for nothing before it")
            add(None, sizes[event.anchor])
        elif isinstance(event, yaml.ScalarEvent):
            add(event.anchor, 1)
