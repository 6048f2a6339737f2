"""Tables that several commands print alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table


def empty_table(title: str, *columns: str, words: int = 1) -> Table:
    """A table without rows whose first `words` columns are text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if number < words else "right"
        table.add_column(column, justify=justify, no_wrap=number >= words or column == "measure")
    return table
