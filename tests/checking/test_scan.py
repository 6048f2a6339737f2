"""Scans: planted adapters stand out at the stated rate, in any order, taken up where it stopped."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner
from written_adapters import PREFIX, factors, write

import lorascope as ls
from lorascope.checking import scanning
from lorascope.checking.ranking import NUMBERS, ranked, rarity
from lorascope.checking.rows import StoredRows
from lorascope.checking.scan_tables import write_tables
from lorascope.checking.scanning import row_of, scan_rows
from lorascope.cli import app
from lorascope.progress import Reporter

QUIET = Reporter(quiet=True)


def scan(*arguments):
    return CliRunner().invoke(app, ["scan", *map(str, arguments), "--quiet"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty alike; 3 is larger, 5 of lower rank, 7 has one large module; one of another shape."""
    place = tmp_path_factory.mktemp("adapters")
    random = np.random.default_rng(0)
    for i in range(20):
        tensors = factors(i, layers=4)
        spread = float(np.exp(0.1 * random.standard_normal()))
        for key in tensors:
            last = ".3." in key
            if "lora_B" in key:
                tensors[key] *= spread * (8 if i == 3 else 1) * (6 if i == 7 and last else 1)
            elif i == 5:
                tensors[key] = tensors[key][:1] + 0.1 * tensors[key]
        write(place / f"team{i % 3}" / f"a{i:02}", tensors, base_model_name_or_path="org/base")
    write(place / "other", factors(30, r=2), r=2)
    broken = factors(31, layers=4)
    broken[f"{PREFIX}.1.self_attn.q_proj.lora_B.weight"][0, 0] = math.nan
    write(place / "nan", broken)
    (place / "cut").mkdir()
    (place / "cut" / "adapter_config.json").write_text('{"peft_type": "LORA"')
    return place


def test_planted_adapters_stand_out_and_no_others(folder, tmp_path):
    done = scan(folder, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.exception
    table = pd.read_csv(tmp_path / "out" / "scan.csv")
    assert len(table) == 23
    names = table["path"].str.rsplit("/", n=1).str[-1]
    assert set(names[table["review"]]) == {"a03", "a05", "a07", "nan", "cut"}
    assert set(names[:2]) == {"nan", "cut"}
    assert set(names[2:5]) == {"a03", "a05", "a07"}
    rows = table.set_index(names)
    assert rows.loc["a03", "z_norm"] > 5
    assert rows.loc["a05", "z_effective_rank"] < -5
    assert rows.loc["a07", "z_largest_share"] > 5
    assert rows.loc["a07", "largest_module"] == "model.layers.3.self_attn.q_proj"
    assert rows.loc["a07", "alike"] == 20
    assert math.isnan(rows.loc["other", "p"])
    assert rows.loc["nan", "errors"] == "not-finite"
    assert "JSON" in rows.loc["cut", "refused"]
    for command in ("lorascope check", "lorascope audit"):
        assert any(line.startswith(command) and "a03" in line for line in done.stdout.splitlines())
    parquet = pd.read_parquet(tmp_path / "out" / "scan.parquet")
    assert list(parquet.columns) == list(table.columns)
    assert np.allclose(parquet["p"], table["p"], equal_nan=True)
    page = (tmp_path / "out" / "scan.html").read_text()
    assert page.count("<tr class=review>") == 5


def test_numbers_of_a_row_by_hand(tmp_path):
    """Norms 3 and 4 of rank one: 5 in all, effective rank 1, the larger has 16 / 25."""
    tensors = {}
    for layer, size in ((0, 3.0), (1, 4.0)):
        path = f"{PREFIX}.{layer}.mlp.up_proj"
        tensors[f"{path}.lora_A.weight"] = torch.eye(1, 5)
        tensors[f"{path}.lora_B.weight"] = size * torch.eye(7, 1)
    row = row_of(str(write(tmp_path, tensors, r=1, lora_alpha=1, target_modules=["up_proj"])))
    assert (row["norm"], row["largest_share"]) == (pytest.approx(5.0), pytest.approx(0.64))
    assert row["effective_rank"] == pytest.approx(1.0)
    assert row["largest_module"] == "model.layers.1.mlp.up_proj"


def test_a_scan_goes_on_where_it_stopped(folder, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(scanning, "row_of", lambda path: made.append(path) or row_of(path))
    paths = scanning.adapters_in([folder])
    whole = list(scan_rows(paths, tmp_path, 1, QUIET))
    assert len(made) == len(paths) == 23
    rows = tmp_path / scanning.ROWS
    lines = rows.read_text().splitlines(keepends=True)
    # Stopped within the eleventh line.
    rows.write_text("".join(lines[:10]) + lines[10][:30])
    made.clear()
    assert list(scan_rows(paths, tmp_path, 1, QUIET)) == whole
    assert len(made) == 13
    made.clear()
    assert list(scan_rows(paths, tmp_path, 1, QUIET)) == whole
    assert made == []
    config = folder / "other" / "adapter_config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(before), "lora_alpha": 80}))
        again = list(scan_rows(paths, tmp_path, 1, QUIET))
        assert made == [str(folder / "other")]
        assert again != whole
    finally:
        config.write_text(before)


def test_processes_change_nothing(folder, tmp_path):
    paths = scanning.adapters_in([folder])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    alone = list(scan_rows(paths, tmp_path / "a", 1, QUIET))
    assert list(scan_rows(paths, tmp_path / "b", 2, QUIET)) == alone


def test_the_order_of_rows_changes_nothing(folder):
    rows = [row_of(path) for path in scanning.adapters_in([folder])]
    straight = [one.plain() for one in ranked(rows, 0.05, 8)]
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    turned = [one.plain() for one in ranked(shuffled, 0.05, 8)]
    assert repr(straight) == repr(turned)


def test_the_rate_holds_where_nothing_stands_out():
    """Families of normal logarithms: one that names anything is wrong, at most 5 % of 400."""
    random, wrong = np.random.default_rng(5), 0
    for _ in range(400):
        rows = []
        for i in range(30):
            values = np.exp(random.standard_normal(3) * (0.3, 0.1, 0.5)).tolist()
            row = {"path": str(i), "refused": "", "errors": [], "base": "b", "shape": "s"}
            rows.append(row | dict(zip(NUMBERS, values, strict=True)))
        wrong += any(one.review for one in ranked(rows, 0.05, 8))
    # 99.9 % of binomial draws at 5 % are 35 or fewer.
    assert wrong <= 35


def test_memory_hardly_grows_with_the_number_of_adapters(tmp_path):
    """What a scan keeps of an adapter is a place in a file and its scores: 1.5 KB, not its row."""

    def held(count):
        file, paths = (
            tmp_path / f"{count}.jsonl",
            [f"/adapters/of a team/{i:06}" for i in range(count)],
        )
        row = {"refused": "", "errors": [], "warnings": ["x" * 2000], "base": "b", "shape": "s"}
        row |= {"type": "LORA", "rank": 8, "modules": 4, "parameters": 9, "largest_module": "m"}
        random = np.random.default_rng(0)
        rows = StoredRows(file, paths, lambda path: 0)
        with rows.appending() as append:
            for path in paths:
                numbers = np.exp(random.standard_normal(3)).tolist()
                append(row | {"path": path, "stamp": 0} | dict(zip(NUMBERS, numbers, strict=True)))
        rarity(1.0, count)
        tracemalloc.start()
        again = StoredRows(file, paths, lambda path: 0)
        assert not again.missing
        found = ranked(again, 0.05, 8)
        write_tables(tmp_path / str(count), found, [])
        current, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found[0].row["warnings"] == ["x" * 2000]
        assert len(pd.read_parquet(tmp_path / str(count) / "scan.parquet")) == count
        return current, peak

    held(10)
    few, many = held(500), held(2500)
    for less, more in zip(few, many, strict=True):
        assert (more - less) / 2000 < 1500


def test_scores_among_few_are_common():
    assert rarity(3.0, 8) > 3 * rarity(3.0, 2000)
    assert rarity(1.96, 2000) == pytest.approx(0.05, abs=0.004)
    assert rarity(0.0, 50) == 1.0


def test_folders_that_are_given_twice_are_said_to_be(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    below = folder / "team1"
    done = scan(folder, below, tmp_path / "link", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert len(pd.read_csv(tmp_path / "out" / "scan.csv")) == 23
    said = done.stderr.splitlines()
    assert [line for line in said if "read once" in line] == [
        f"lorascope: {below} lies in {folder}; its adapters are read once",
        f"lorascope: {tmp_path / 'link'} is given twice; its adapters are read once",
    ]
    apart = scan(folder / "team0", folder / "team1", "--out", tmp_path / "apart")
    assert "read once" not in apart.stderr


def test_wrong_input_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for wrong in ((tmp_path / "nope",), (tmp_path / "empty",), (tmp_path / "empty", "--rate", 2)):
        done = scan(*wrong, "--out", tmp_path / "out")
        assert isinstance(done.exception, ls.InputError)
    assert not (tmp_path / "out").exists()
