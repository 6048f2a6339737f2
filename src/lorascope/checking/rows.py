"""What a scan keeps of its adapters: a line of a file each, read again as it is asked for.

In memory there are only the places of the lines, so that a scan of very many adapters takes hardly
more than one of a few.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

Row = dict[str, Any]


class StoredRows(Sequence[Row]):
    """Rows by the order of their paths; each is read from the file when it is asked for."""

    def __init__(self, file: Path, paths: Sequence[str], stamp: Callable[[str], Any]) -> None:
        """Those of an earlier scan that still hold.

        Args:
            file: a row a line, the last of each path counts; a line that was cut off is left out.
            paths: of the rows that are wanted.
            stamp: what tells that an adapter's files were changed; a row has its own as "stamp".
        """
        self._file = file
        self._paths = paths
        self._places: dict[str, int] = {}
        wanted = {path: path for path in paths}
        for place, row in _lines(file):
            # The wanted path itself: a copy of each would be most of what is kept.
            path = wanted.get(row["path"])
            if path is None:
                continue
            self._places.pop(path, None)
            if row.get("stamp") == stamp(path):
                self._places[path] = place

    @property
    def missing(self) -> list[str]:
        """Paths without a row that holds."""
        return [path for path in self._paths if path not in self._places]

    @contextmanager
    def appending(self) -> Iterator[Callable[[Row], None]]:
        """A function that adds a row and hands it to the system at once."""
        with self._file.open("ab+") as lines:
            end = lines.seek(0, 2)
            lines.seek(max(0, end - 1))
            if lines.read(1) not in (b"", b"\n"):
                lines.write(b"\n")
                end += 1

            def append(row: Row) -> None:
                nonlocal end
                line = json.dumps(row).encode() + b"\n"
                lines.write(line)
                lines.flush()
                self._places[row["path"]] = end
                end += len(line)

            yield append

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        with self._file.open("rb") as lines:
            lines.seek(self._places[self._paths[at]])
            found: Row = json.loads(lines.readline())
        return found


def _lines(file: Path) -> Iterator[tuple[int, Row]]:
    """Every whole row of a file, and where it begins."""
    if not file.is_file():
        return
    place = 0
    with file.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("path"), str):
                yield place, row
            place += len(line)
