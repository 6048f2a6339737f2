"""The one place that writes to a terminal: control characters in foreign names are made visible.

Control characters, escape sequences and characters that turn the direction of writing are written
out (`\\x1b`, `\\u202e`); in JSON they stand as its own escapes.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console as _Console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# Joiners of emoji and of several scripts show nothing and turn nothing.
_HARMLESS = "\u200c\u200d\u00ad"
# Columns of a terminal between two of a table, and the fewest for text on several lines.
_GAP, _LEAST_WRAPPED = 2, 16
_PLAIN = re.compile(r"[\x20-\x7e\n]*\Z")


def visible(text: str) -> str:
    """Text with every character that could act on a terminal written out; lines stay lines."""
    if _PLAIN.match(text):
        return text
    return "".join(c if _shows(c) else _written_out(c) for c in text)


def say(text: object, *, err: bool = False) -> None:
    """Print lines, to stderr if asked."""
    stream = sys.stderr if err else sys.stdout
    stream.write(visible(str(text)) + "\n")
    stream.flush()


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings as all else is printed, since those of libraries may hold foreign names.

    What libraries say to their own developers is left out: it is not for whoever runs an audit.
    """

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        del file
        say(warnings.formatwarning(message, category, filename, lineno, line).rstrip(), err=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
        warnings.showwarning = show
        yield


def say_json(data: Any) -> None:
    """Print plain data as JSON that any reader takes: what is no number is null."""
    text = json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False)
    if not _PLAIN.match(text):
        # Outside of texts JSON has none of these characters.
        text = "".join(c if _shows(c) else _json_escape(c) for c in text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Column:
    """One column of a table that a terminal or a pipe gets.

    Attributes:
        heading: its name.
        cells: one text a row.
        rank: what goes first where there is no room for all: the largest.
        wraps: whether it may stand on several lines; numbers may not.
    """

    heading: str
    cells: Sequence[str]
    rank: int = 0
    wraps: bool = False

    @property
    def least(self) -> int:
        """Fewest columns of a terminal in which it can be read."""
        words = [cell_len(word) for word in self.heading.split()]
        cells = [cell_len(visible(cell)) for cell in self.cells]
        if self.wraps:
            cells = [min(max(cells, default=0), _LEAST_WRAPPED)]
        return max([*words, *cells, 1])


def say_table(columns: Sequence[Column], console: Console, title: str = "") -> None:
    """Print a table: as wide as the terminal, or in a pipe whole, with a tab between cells.

    Where a terminal is too narrow the columns of the largest `rank` are left out and named below.
    """
    if not console.is_terminal:
        for row in ([c.heading for c in columns], *zip(*(c.cells for c in columns), strict=True)):
            # A cell holds no tab and no line's end of its own; those between cells are meant.
            sys.stdout.write("\t".join(visible(" ".join(str(cell).split())) for cell in row) + "\n")
        sys.stdout.flush()
        return
    kept = list(columns)
    while len(kept) > 1 and sum(c.least + _GAP for c in kept) > console.width:
        kept.remove(max(kept, key=lambda column: column.rank))
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold")
    table.title, table.title_justify = title or None, "left"
    for column in kept:
        # A word a line: numbers leave room for what is said beside them.
        heading = column.heading if column.wraps else column.heading.replace(" ", "\n")
        justify: Any = "left" if column.wraps else "right"
        width = None if column.wraps else column.least
        table.add_column(
            heading,
            justify=justify,
            no_wrap=not column.wraps,
            min_width=column.least,
            max_width=width,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if left := [column.heading for column in columns if column not in kept]:
        console.print(Text(f"No room for: {', '.join(left)}. A wider terminal or a pipe has them."))


class Console(_Console):
    """Rich's console, with the text of everything it renders made visible."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's; cells of tables are made visible before their widths are measured."""
        for one in objects:
            if isinstance(one, Table):
                one.title = self._shown(one.title)
                for column in one.columns:
                    column.header = self._shown(column.header)
                    column._cells = [self._shown(cell) for cell in column._cells]
        super().print(*objects, **options)

    def _shown(self, cell: Any) -> Any:
        if isinstance(cell, str):
            return visible(cell)
        if not isinstance(cell, Text) or _PLAIN.match(cell.plain):
            return cell
        return Text.assemble(*((visible(s.text), s.style or "") for s in cell.render(self)))

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of a renderable; only rich's own controls stay controls."""
        for segment in super().render(renderable, options):
            if segment.control or _PLAIN.match(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def _shows(character: str) -> bool:
    if character == "\n" or character in _HARMLESS:
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _json_escape(character: str) -> str:
    pairs = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pairs[i]:02x}{pairs[i + 1]:02x}" for i in range(0, len(pairs), 2))


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(item) for item in data] if isinstance(data, list | tuple) else data
