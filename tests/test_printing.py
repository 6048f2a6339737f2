"""Nothing that a name holds acts on a terminal, and JSON is JSON."""

import io
import json
import math
import warnings

import pytest
from rich.table import Table
from rich.text import Text

from lorascope.printing import (
    Column,
    Console,
    say,
    say_json,
    say_table,
    shown_warnings,
    visible,
)

ESCAPE = "\x1b]0;title\x07"
TURNED = "a\u202eb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ESCAPE, r"\x1b]0;title\x07"),
        (TURNED, r"a\u202eb"),
        ("\u2066x\u2069\u200f", r"\u2066x\u2069\u200f"),
        ("\x9b31m\x7f\r\t", r"\x9b31m\x7f\r\t"),
        ("\u2028\ufeff\U000e0041", r"\u2028\ufeff\U000e0041"),
        ("\udc80", r"\udc80"),
        ("two\nlines", "two\nlines"),
        ("été 日本 👨\u200d👩 ␣", "été 日本 👨\u200d👩 ␣"),
    ],
)
def test_what_could_act_is_written_out(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_lines_tables_and_titles(capsys):
    say(f"x {ESCAPE}")
    say(TURNED, err=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("x \\x1b]0;title\\x07\n", "a\\u202eb\n")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system="standard")
    table = Table(title=Text(TURNED))
    table.add_column(Text(ESCAPE))
    table.add_row(Text(ESCAPE), style="red")
    console.print(table)
    console.print(ESCAPE, markup=False, highlight=False)
    shown = file.getvalue()
    assert "\u202e" not in shown
    assert "\x07" not in shown
    assert "\x1b]0" not in shown
    assert shown.count(r"\x1b]0;title") == 3  # rich takes the bell away
    assert "\x1b[" in shown  # rich's own colours stay


def test_json_has_no_nan_and_no_raw_controls(capsys):
    data = {TURNED: [math.nan, math.inf, -math.inf, 1.5], "b": (ESCAPE, "\U000e0041é")}
    say_json(data)
    out = capsys.readouterr().out
    assert "NaN" not in out
    assert "Infinity" not in out
    assert not {"\u202e", "\x1b", "\x07", "\U000e0041"} & set(out)
    assert "é" in out
    expected = {TURNED: [None, None, None, 1.5], "b": [ESCAPE, "\U000e0041é"]}
    assert json.loads(out) == expected


COLUMNS = [
    Column("name", ["a long name of many words that needs several lines", "b"], 0, wraps=True),
    Column("value", ["0.123", "4.5"], 1),
    Column("much detail", ["[0.1234, 0.5678]", ""], 3),
    Column("verdict", ["above", "not settled: about 4,000 tokens would tell"], 2, wraps=True),
]


def table_at(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    say_table(COLUMNS, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [30, 44, 60, 80, 120])
def test_a_narrow_terminal_gets_the_columns_that_matter_most_and_is_told_of_the_others(width):
    shown = table_at(width)
    assert max(map(len, shown.splitlines())) <= width
    body, _, below = shown.partition("No room for")
    # Whole numbers and whole words, whatever the width.
    assert "name" in body
    for word in COLUMNS[0].cells[0].split():
        assert word in body
    assert ("0.123" in body) != ("value" in below)
    assert ("[0.1234, 0.5678]" in body) != ("much" in below)
    assert ("much" in below) >= ("verdict" in below) >= ("value" in below)
    assert (width >= 80) == (below == "")


def test_a_pipe_gets_every_column_with_tabs_between(capsys):
    say_table([*COLUMNS, Column("odd", ["a\tb\nc", "\x1b[0m"])], Console(file=io.StringIO()))
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["name", "value", "much detail", "verdict", "odd"]
    assert lines[1] == [*(column.cells[0] for column in COLUMNS), "a b c"]
    assert lines[2][-1] == "\\x1b[0m"


def test_warnings_are_printed_visibly_but_not_those_for_developers_of_libraries(capsys):
    before = warnings.showwarning
    with shown_warnings():
        warnings.warn(ESCAPE, UserWarning, stacklevel=1)
        for module in ("transformers.modeling_utils", "peft.tuners", "mine.own"):
            warnings.warn_explicit(f"of {module}", FutureWarning, "file.py", 1, module)
    out, err = capsys.readouterr()
    assert not out
    assert r"\x1b]0;title" in err
    assert "of mine.own" in err
    assert "of transformers" not in err
    assert "of peft" not in err
    assert warnings.showwarning is before
