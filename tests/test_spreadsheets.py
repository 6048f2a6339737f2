"""Texts in CSV files are no formulas; numbers and what is read back are what they were."""

import ast
from pathlib import Path

import pandas as pd
import pytest

import lorascope
from lorascope.checking.ranking import ranked
from lorascope.checking.scan_tables import write_tables
from lorascope.checking.scanning import row_of
from lorascope.spreadsheets import cell, csv_text, from_csv

SOURCE = Path(lorascope.__file__).parent
WRONG = ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=1+1"]


@pytest.mark.parametrize("text", WRONG)
def test_what_begins_like_a_formula_is_text(text):
    assert cell(text) == f"'{text}"


def test_numbers_and_other_texts_stay():
    for value in ("-0.5", "+1e-3", "-inf", "a=b", "l1=0.1", "", "'quoted", None, -1.5, 3, True):
        assert cell(value) is value


def test_a_table_is_what_it_was_but_for_the_mark(tmp_path):
    table = pd.DataFrame(
        {"of": ["=x", "plain", None], "value": [-1.0, 2.0, float("nan")], "n": [-1, 0, 1]}
    )
    assert csv_text(table) == "of,value,n\n'=x,-1.0,-1\nplain,2.0,0\n,,1\n"
    (tmp_path / "a.csv").write_text(csv_text(table))
    again = from_csv(pd.read_csv(tmp_path / "a.csv"))
    assert again["of"].tolist()[:2] == ["=x", "plain"]
    assert again["value"].tolist()[:2] == [-1.0, 2.0]
    # The table itself is not changed.
    assert table["of"].tolist()[0] == "=x"


def test_a_scan_of_an_adapter_with_a_hostile_name_and_base(tmp_path):
    folder = tmp_path / "=a"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    row = {**row_of(str(folder)), "path": "=a", "base": WRONG[0], "refused": "-not+a+number"}
    files = write_tables(tmp_path, ranked([row], 0.05, 8), [])
    found = pd.read_csv(files["csv"]).iloc[0]
    assert found["path"] == "'=a"
    assert found["base"] == f"'{WRONG[0]}"
    assert pd.read_parquet(files["parquet"]).iloc[0]["base"] == WRONG[0]


def test_no_table_is_written_another_way():
    """Whoever writes CSV does it here, or puts each cell through `cell`."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        names = [
            n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
        ]
        if {"to_csv", "writerows"} & set(names):
            found[path.relative_to(SOURCE).as_posix()] = "cell" in path.read_text()
    assert found == {"spreadsheets.py": True, "report/figure_files.py": True}
