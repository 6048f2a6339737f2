"""What a terminal shows when an audit has ended, in terminals of several widths."""

import io

import pytest
from rich.console import Console

from lorascope.report.result import read_results
from lorascope.studies.audit.sections.tables import verdict_matrix
from lorascope.studies.audit.sections.terminal import summary


def printed(run, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(summary(run))
    return console.file.getvalue()


def table_lines(text):
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("number"))
    return lines[start], lines[start + 1 :]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_every_number_is_named_with_value_and_chance_in_any_width(run_folder, width):
    head, lines = table_lines(printed(run_folder, width))
    assert max(map(len, [head, *lines])) <= width
    for column in ("number", "value", "chance"):
        assert column in head
    body = " ".join(" ".join(lines).split())
    for row in verdict_matrix(read_results(run_folder)):
        assert row.title.split()[0] in body


def test_adapters_have_columns_where_there_is_room_for_all_and_are_counted_together_else(
    run_folder,
):
    results = read_results(run_folder)
    assert len(results.adapters) == 4
    wide, _ = table_lines(printed(run_folder, 160))
    narrow, lines = table_lines(printed(run_folder, 60))
    assert all(name in wide for name in results.adapters)
    assert "all 4 adapters" in narrow
    (pooled, *_) = verdict_matrix(results, pooled=True)
    apart = [sum(cell.total for cell in row.cells) for row in verdict_matrix(results)]
    assert pooled.cells[0].total == apart[0]
    assert pooled.cells[0].text in lines[0]
