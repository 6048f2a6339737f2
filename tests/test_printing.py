"""Nothing that a name holds acts on a terminal, and JSON is JSON."""

import io
import json
import math

import pytest
from rich.table import Table
from rich.text import Text

from lorascope.printing import Console, say, say_json, visible

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
