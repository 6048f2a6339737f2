"""What a number of an evaluation is made of, unit by unit, so that two runs can be paired later.

A number is Σ above / Σ below over units. Documents count with their tokens, as `stats.documents`
does; rows, sets, letters, classes, pairs and items weigh alike, and below is 1 in a plain mean.
Units are named by what they are (a document by its tokens, a row by its text), so that two runs
know which of theirs are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorascope.activations.tokens import Window
from lorascope.results import Key
from lorascope.runs import read_json, write_atomically

FILE = "units.json"
DOCUMENTS = "documents"


@dataclass(frozen=True)
class Units:
    """The parts of one number.

    Attributes:
        measure, key: of the number.
        kind: what the units are: "documents", "texts", "sets", "letters", ….
        ids: name of each, the same in every run.
        above: of each unit, in the number's unit (a sum over tokens, for documents).
        below: of each unit; empty for a plain mean.
        tokens: of each document; empty for other units.
    """

    measure: str
    key: Key
    kind: str
    ids: tuple[str, ...]
    above: tuple[float, ...]
    below: tuple[float, ...] = ()
    tokens: tuple[float, ...] = ()

    @classmethod
    def mean(
        cls, measure: str, key: Key, kind: str, ids: Iterable[str], values: Tensor | Sequence[float]
    ) -> Units:
        """Of a plain mean over units."""
        return cls(measure, key, kind, tuple(ids), _plain(values))

    @classmethod
    def ratio(
        cls,
        measure: str,
        key: Key,
        ids: Iterable[str],
        above: Tensor,
        below: Tensor,
        tokens: Tensor,
    ) -> Units:
        """Of a ratio of two sums over documents."""
        parts = (_plain(above), _plain(below), _plain(tokens))
        return cls(measure, key, DOCUMENTS, tuple(ids), *parts)


def _plain(values: Tensor | Sequence[float]) -> tuple[float, ...]:
    return tuple(torch.as_tensor(values, dtype=torch.float64).tolist())


def document_ids(windows: Sequence[Window]) -> list[str]:
    """A name for every document of some windows, in their order: a hash of its tokens."""
    count = max((window.document for window in windows), default=-1) + 1
    found = [hashlib.sha256() for _ in range(count)]
    for window in windows:
        found[window.document].update(repr(list(window.ids)).encode())
    return [one.hexdigest()[:16] for one in found]


def text_ids(texts: Iterable[str]) -> list[str]:
    """A name for every text: a hash of it."""
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def digest_of(texts: Iterable[str]) -> str:
    """A name for several texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def write_units(found: Sequence[Units], folder: Path) -> None:
    """Write `units.json` of a stage; names that several numbers share stand there once."""
    shared: dict[tuple[str, ...], int] = {}
    numbers = []
    for one in found:
        record = asdict(one)
        record["ids"] = shared.setdefault(one.ids, len(shared))
        numbers.append(record)
    record = {"ids": [list(ids) for ids in shared], "numbers": numbers}
    write_atomically(folder / FILE, json.dumps(record) + "\n")


def read_units(folder: Path) -> list[Units]:
    """What `write_units` wrote.

    Raises:
        InputError: it is missing or damaged.
    """
    record = read_json(folder / FILE)
    return [_read(one, record["ids"]) for one in record["numbers"]]


def _read(record: dict[str, Any], ids: Sequence[Sequence[str]]) -> Units:
    parts = {name: tuple(record[name]) for name in ("above", "below", "tokens")}
    key = Key(**record["key"])
    return Units(record["measure"], key, record["kind"], tuple(ids[record["ids"]]), **parts)
