"""The audit paper's tables: which numbers stand where, as CSV and LaTeX."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from lorascope.report.paper_table import PaperTable, frame, latex
from lorascope.report.result import Results, read_results
from lorascope.results import Estimate
from lorascope.results.labels import DELTA_VS_BASE
from lorascope.studies.audit.sections.paper import paper_tables

MakeRun = Callable[..., Path]
Plant = Callable[..., list[Estimate]]


@pytest.fixture(scope="module")
def tables(results: Results) -> dict[int, PaperTable]:
    return {table.number: table for table in paper_tables(results)}


def test_tables_2_to_12_are_there(tables: dict[int, PaperTable]):
    assert list(tables) == [2, *range(4, 13)]
    assert tables[2].rows[0][0] == "r4"
    assert [cell.text for cell in tables[2].rows[0][1]][-2:] == ["3.61", "3.10"]


@pytest.mark.parametrize(
    ("number", "measure", "dictionary"),
    [
        (4, "delta_norm", ""),
        (5, "relative_error", "base"),
        (6, "relative_error", "delta"),
        (7, "improvement", "delta"),
    ],
)
def test_ranks_are_rows_and_layers_columns(tables, results, number, measure, dictionary):
    table = tables[number]
    assert (table.heading, table.columns) == ("Rank", ["layers.1", "layers.3", "layers.5"])
    assert [label for label, _ in table.rows] == ["4", "8", "16", "32"]
    known = results.estimates.select(measure, dictionary=dictionary)
    for label, cells in table.rows:
        for site, cell in zip(table.columns, cells, strict=True):
            assert cell.value == known.one(rank=int(label), site=site).value
            assert "chance" in cell.under


def test_conditions_are_rows_where_a_table_has_several_measures(tables, results):
    cosine = tables[9]
    assert cosine.columns == ["Mean", "Median", "90th percentile", "Above 0.7", "Below 0.3"]
    assert len(cosine.rows) == 12
    label, cells = cosine.rows[5]
    assert label == "8, layers.5"
    known = results.estimates.select("max_cosine.q90", rank=8, site="layers.5")
    assert cells[2].value == known.one(**DELTA_VS_BASE._asdict()).value


def test_the_ablation_has_a_row_for_each_sparsity(tables):
    table = tables[12]
    assert [label for label, _ in table.rows] == ["l1=0.05", "l1=0.15"]
    assert table.title.endswith("r4 at layers.1")


def test_seeds_are_averaged(make_run: MakeRun, plant: Plant):
    results = read_results(make_run(plant(seeds=(0, 1, 2), measures=["improvement"])))
    (table,) = [t for t in paper_tables(results) if t.number == 7]
    known = results.estimates.select(rank=16, site="layers.3")
    assert len(known) == 3
    assert table.rows[2][1][1].value == pytest.approx(fmean(e.value for e in known))


def test_adapters_that_differ_in_their_seed_share_a_row(make_run: MakeRun, plant: Plant):
    adapters = {"r4-s0": 4, "r4-s1": 4, "r8-s0": 8, "r8-s1": 8}
    named = [{"name": n, "rank": r, "group": n[:2]} for n, r in adapters.items()]
    rows = plant(adapters=adapters, measures=["delta_norm"])
    results = read_results(make_run(rows, adapters=named))
    (table,) = [t for t in paper_tables(results) if t.number == 4]
    assert [label for label, _ in table.rows] == ["4", "8"]
    both = results.estimates.select(rank=8, site="layers.1")
    assert table.rows[1][1][0].value == pytest.approx(fmean(e.value for e in both))


def test_the_csv_holds_numbers_as_they_are(tables, run_folder: Path):
    written = pd.read_csv(run_folder / "report" / "tables" / "table_04_delta_norm.csv")
    expected = [cells[1].value for _, cells in tables[4].rows]
    assert list(written["layers.3"]) == pytest.approx(expected, rel=1e-12)
    assert list(frame(tables[4]).columns)[:2] == ["Rank", "layers.1"]


def test_the_latex_is_one_tabular_with_nothing_unescaped(tables, make_run: MakeRun, plant: Plant):
    hostile = {r"50%_&#{}\input{x}": None}
    results = read_results(make_run(plant(adapters=hostile, measures=["delta_norm"])))
    (table,) = [t for t in paper_tables(results) if t.number == 4]
    text = latex(table)
    assert r"50\%\_\&\#\{\}\textbackslash{}input\{x\}" in text
    for each in (*map(latex, tables.values()), text):
        assert each.count(r"\begin{tabular}") == each.count(r"\end{tabular}") == 1
        body = each.split(r"\midrule")[1].split(r"\bottomrule")[0]
        widths = {line.replace(r"\&", "").count("&") for line in body.strip().splitlines()}
        assert len(widths) == 1
        # What LaTeX's fonts do not know by themselves.
        assert not set("▲▼‖Δ·°∞−–") & set(each)


def test_empty_cells_where_nothing_was_measured(make_run: MakeRun, plant: Plant):
    kept = [
        e
        for e in plant(measures=["delta_norm"])
        if not (e.key.adapter == "r8" and e.key.site == "layers.3")
    ]
    results = read_results(make_run(kept))
    (table,) = [t for t in paper_tables(results) if t.number == 4]
    cell = table.rows[1][1][1]
    assert cell.text == "–"
    assert math.isnan(cell.value)
