"""Tables as CSV that a spreadsheet opens without taking a text for a formula.

Texts of models, names of adapters and paths are foreign: one that begins like a formula would be
computed, and could call other programs, once somebody opens the file. Such a text gets an
apostrophe in front, which spreadsheets do not show; numbers stay as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_BEGINS = re.compile(r"[=+\-@\t\r]")
_GUARDED = re.compile(r"'[=+\-@\t\r]")


def csv_text(table: pd.DataFrame, *, header: bool = True) -> str:
    """A table as CSV, without its index; without its header too where it goes on with another."""
    return _mapped(table, cell).to_csv(index=False, header=header)


def from_csv(table: pd.DataFrame) -> pd.DataFrame:
    """What `csv_text` was given, of its CSV read as a table."""
    return _mapped(table, _text)


def cell(value: Any) -> Any:
    """One cell: a text that begins like a formula and is no number is marked as text."""
    if not isinstance(value, str) or _BEGINS.match(value) is None:
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _text(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and _GUARDED.match(value) else value


def _mapped(table: pd.DataFrame, function: Any) -> pd.DataFrame:
    from pandas.api.types import is_numeric_dtype

    texts = [name for name in table.columns if not is_numeric_dtype(table[name].dtype)]
    return table.assign(**{name: table[name].astype(object).map(function) for name in texts})
