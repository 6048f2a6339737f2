"""`lorascope compare` on adapt studies: two models side by side, and what is refused."""

import json
import math
import shutil
import sys
from dataclasses import replace

import pandas as pd
import pytest
from planted_adapt import WAYS, planted_adapt_run

import lorascope.report
from lorascope import cli
from lorascope.errors import InputError
from lorascope.report.result import read_results, write_estimates
from lorascope.runs import read_json
from lorascope.studies.adapt.model_comparison import compare_models
from lorascope.studies.adapt.sections.model_comparison import (
    ModelNumbers,
    _costs,
    _shares,
    _sparsity,
    sentences,
)

MAIN, WORDS = "lora-all-r16", "LoRA everywhere, rank 16"


def study(root, **facts):
    folder = planted_adapt_run(root, **facts)
    (folder / "study.yaml").write_text("workflow: adapt\n")
    return folder


@pytest.fixture
def two(tmp_path):
    """Studies of two models; the second recovers a tenth of its cost less."""
    settings = {"fit": {"tokens": 16000, "lora": {"rank": 16}}, "context": 128, "name": "one"}
    other = {"fit": {"tokens": 8000, "lora": {"rank": 16}}, "context": 128, "name": "two"}
    first = study(tmp_path, model="one", settings=settings)
    return first, study(tmp_path, model="two", shift=-0.1, settings=other)


def lorascope_with(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lorascope", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as left:
        return left.code
    return 0


def test_numbers_of_each_model_and_how_far_they_are_apart(two, tmp_path):
    found = compare_models(two, tmp_path / "out")
    beside = ModelNumbers(read_results(tmp_path / "out"))
    first, second = beside.models
    assert [m["name"] for m in beside.models] == ["one", "two"]
    assert beside.fitted == list(WAYS)
    for model, folder in zip(beside.models, two, strict=True):
        own = read_results(folder)
        values = [
            e.value
            for e in own.numbers
            if e.measure == "adapt.share_closed"
            and (e.key.adapter, e.key.dictionary) == (MAIN, "b")
        ]
        share = beside.number(model, MAIN, "adapt.share_closed")
        assert share.value == pytest.approx(sum(values) / 3)
        assert share.nulls
    apart = beside.number(second, MAIN, "adapt.share_difference")
    assert apart.value == pytest.approx(-0.1)
    assert apart.verdict == "below"
    assert beside.number(first, MAIN, "adapt.share_difference") is None
    assert {e.key.dictionary for e in beside.scaling(first)} == {"a", "b", "c"}
    keys = [(e.measure, e.key) for e in found.estimates]
    assert len(set(keys)) == len(keys)
    said = sentences(beside)
    assert said[0].startswith(f"one: {WORDS} recovers 40 % [")
    assert said[2].startswith("The share of two is less than that of one: −10 points [")
    assert found.facts["warnings"] == [
        "two was not studied as one was: fit.tokens is 8000, not 16000"
    ]


def test_page_figures_and_tables(two, tmp_path, looked_at):
    page = compare_models(two, tmp_path / "out").report
    figures = {path.stem for path in (tmp_path / "out" / "report" / "figures").glob("*.svg")}
    assert {"models_share", "models_cost", "models_l0"} <= figures
    table = pd.read_csv(tmp_path / "out" / "report" / "tables" / "models.csv")
    assert table["Model"].tolist() == ["one", "two"]
    assert table["Share closed"].tolist() == pytest.approx([0.4, 0.3])
    scaling = pd.read_csv(tmp_path / "out" / "report" / "tables" / "models_scaling.csv")
    assert scaling.groupby("Model")["L0"].apply(sorted).tolist() == [[8, 16, 32]] * 2
    text = page.read_text(encoding="utf-8")
    assert lorascope.report.build(tmp_path / "out").read_text(encoding="utf-8") == text
    looked_at(page)


def test_two_studies_of_one_model_are_told_apart_by_their_folders(tmp_path):
    runs = [study(tmp_path), study(tmp_path, shift=0.1)]
    found = compare_models(runs, tmp_path / "out")
    names = [model["name"] for model in found.facts["models"]]
    assert names == [f"{run.name}/embedded" for run in runs]
    # Folders of one name too: numbers tell them apart.
    namesake = tmp_path / "elsewhere" / runs[0].name
    shutil.copytree(runs[0], namesake)
    found = compare_models([runs[0], namesake], tmp_path / "again")
    assert len({model["name"] for model in found.facts["models"]}) == 2
    keys = [(e.measure, e.key) for e in found.estimates]
    assert len(set(keys)) == len(keys)


def test_every_figure_has_its_chance_levels(two, tmp_path):
    out = tmp_path / "out"
    compare_models(two, out)
    beside = ModelNumbers(read_results(out))
    drawn = [figure for make in (_shares, _costs, _sparsity) for figure in make(beside)]
    assert len(drawn) == 3
    for figure in drawn:
        values = [row for row in figure.spec["data"]["values"] if row["kind"] == "value"]
        assert values
        assert all(row["chance"] is not None for row in values), figure.key
    over_l0 = [(row["site"], row["label"]) for row in values]
    assert sorted(over_l0) == [(m, l0) for m in ("one", "two") for l0 in ("16", "32", "8")]


def test_without_an_interval_there_is_no_difference(two, tmp_path):
    _, second = two
    table = read_results(second)
    bare = [replace(e, interval=(math.nan, math.nan)) for e in table.numbers if not e.key.seed]
    write_estimates(bare, second / "results")
    found = compare_models(two, tmp_path / "out")
    measures = {e.measure for e in found.estimates if e.key.model == "two"}
    assert "adapt.share_closed" in measures
    assert "adapt.share_difference" not in measures


def test_from_the_command_line(two, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert not lorascope_with(monkeypatch, "compare", *two, "--out", out)
    said = capsys.readouterr()
    assert "recovers 40 %" in said.out
    assert "fit.tokens is 8000" in said.err
    assert read_json(out / "comparison.json")["command"].startswith("lorascope compare")
    assert not lorascope_with(monkeypatch, "compare", *two, "--out", out, "--json")
    plain = json.loads(capsys.readouterr().out)
    assert {row["measure"] for row in plain["estimates"]} >= {"adapt.share_difference"}


def test_what_is_refused(two, tmp_path, monkeypatch, capsys):
    first, second = two
    for runs, words in (
        ([first], "give two different runs"),
        ([first, first], "give two different runs"),
        ([first, second, "--rows", "10"], "--rows is for audits"),
        ([first, tmp_path / "nowhere"], "no run of lorascope adapt"),
        ([first, second, "--out", first], "give --out another folder"),
    ):
        assert lorascope_with(monkeypatch, "compare", *runs) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line
    (second / "results" / "facts.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        compare_models([first, second], tmp_path / "out")
    bare = study(tmp_path, experiments={})
    with pytest.raises(InputError, match="no LoRA was fitted"):
        compare_models([first, bare], tmp_path / "out")
    assert not (tmp_path / "out").exists()
