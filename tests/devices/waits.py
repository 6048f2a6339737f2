"""What waited for the second device, and which lines asked for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Wait:
    """Something that waits for the device.

    Attributes:
        what: the operation.
        where: package, file and function that asked for it, the nearest outside torch.
        line: of that file.
    """

    what: str
    where: str
    line: int


@dataclass
class Watch:
    """What happened on the second device.

    Attributes:
        waits: reads by the CPU, in order.
        copies: copies from the CPU that are not told to go on at once (`non_blocking`): CUDA does
            first what it was given before.
        operations: how many were computed there.
    """

    waits: list[Wait] = field(default_factory=list)
    copies: list[Wait] = field(default_factory=list)
    operations: int = 0


class Marks:
    """An observer of a run: how many waits and copies there were after each step."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._after: list[tuple[int, int]] = []

    def __call__(self, progress: object) -> None:
        self._after.append((len(self._watch.waits), len(self._watch.copies)))

    def steps(self) -> list[tuple[Counter[str], Counter[str]]]:
        """What each step but the first waited for, and what it copied."""
        return [
            (counted(self._watch.waits[a:c]), counted(self._watch.copies[b:d]))
            for (a, b), (c, d) in pairwise(self._after)
        ]


def counted(waits: Sequence[Wait]) -> Counter[str]:
    """How often each function waited."""
    return Counter(wait.where for wait in waits)
