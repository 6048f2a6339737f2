"""Files changed at random: other bytes, and other values of a configuration."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

VALUES = [
    *(None, True, False, 0, 1, -1, 3, 10**9, 10**30, 2.5, -0.0, float("inf"), float("nan")),
    *("", "true", "topk", "layers.1", "\x1b[0m", "a" * 10_000, "é\n\nb", [], [1], [[]], {}),
    *({"k": 3}, {"in": "x"}, {"io": []}, [None] * 50),
]


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every (mapping or list, key or place) of nested data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in pairs:
        yield data, key
        if isinstance(value, dict):
            yield from places(value)


def other_values(chance: Random, path: Path) -> None:
    """Exchange values of a JSON file for values of every other kind, or take them out."""
    data = json.loads(path.read_text())
    if not isinstance(data, dict | list) or not data:
        other_bytes(chance, path)
        return
    for _ in range(chance.randint(1, 3)):
        inside, key = chance.choice(list(places(data)))
        if chance.random() < 0.15:
            del inside[key]
            if not data:
                break
        else:
            inside[key] = copy.deepcopy(chance.choice(VALUES))
    path.write_text(json.dumps(data))


def other_bytes(chance: Random, path: Path) -> None:
    """Exchange bytes of any file, cut some out or double them."""
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 40)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 40)]
            case 3:
                data[at : at + 8] = chance.randbytes(8)
    path.write_bytes(bytes(data))


@contextmanager
def seconds(most: int) -> Iterator[None]:
    """Fail what takes longer."""

    def late(*_: Any) -> None:
        raise AssertionError(f"longer than {most} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(most)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
