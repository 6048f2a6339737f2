"""The one place through which text reaches a terminal: whatever a name holds, it is only shown.

Control characters, escape sequences and characters that turn the direction of writing are written
out (`\\x1b`, `\\u202e`); in JSON they stand as its own escapes.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console as _Console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# Joiners of emoji and of several scripts show nothing and turn nothing.
_HARMLESS = "\u200c\u200d\u00ad"
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


def say_json(data: Any) -> None:
    """Print plain data as JSON that any reader takes: what is no number is null."""
    text = json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False)
    if not _PLAIN.match(text):
        # Outside of texts JSON has none of these characters.
        text = "".join(c if _shows(c) else _json_escape(c) for c in text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


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
