"""The results of a run on disk: one table, its readable copies, and the facts beside it."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lorascope.errors import InputError
from lorascope.report.result import read_results, write_estimates
from lorascope.results import Estimate, Estimates, Key, Null

COSINE = Estimate(
    "max_cosine.mean",
    0.61,
    (0.60, 0.62),
    1490,
    "cosine",
    (
        Null("covariance-matched", 0.30, 0.29, 0.31, rival=True),
        Null("isotropic", 0.61, 0.60, 0.62),
    ),
    Key("r4", 4, "layers.5", 1, "delta"),
)
NORM = Estimate("delta_norm", 18.5, (math.nan, math.nan), 7, "stream units")
DRAW = Estimate("delta_norm", 17.0, (16.0, 18.0), 7, "stream units", (), Key("r9", draw=0))


def test_csv_files_are_the_table_as_frames(tmp_path: Path):
    write_estimates([COSINE, NORM], tmp_path)
    every = Estimates.read(tmp_path / "estimates.parquet")
    assert (tmp_path / "estimates.csv").read_text() == every.to_frame().to_csv(index=False)
    assert (tmp_path / "chance_levels.csv").read_text() == every.nulls_frame().to_csv(index=False)
    names = ["chance_levels.csv", "estimates.csv", "estimates.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    table = pd.read_csv(tmp_path / "estimates.csv", keep_default_na=False)
    assert table["verdict"].tolist() == ["above", "no verdict"]
    assert table["null"].tolist() == ["covariance-matched", ""]


def test_a_number_is_written_with_what_its_definition_declares(tmp_path: Path):
    write_estimates([COSINE], tmp_path)
    (cosine,) = Estimates.read(tmp_path / "estimates.parquet")
    # The margin of cosines: beside isotropic directions this one is equal, by its definition.
    assert cosine.margin == 0.02
    assert cosine.against(cosine.nulls[1]) == "equal"


def test_results_tell_adapters_from_null_adapters(tmp_path: Path):
    write_estimates([DRAW, COSINE, NORM], tmp_path / "results")
    facts = {"sites": ["layers.5"], "adapters": [{"name": "r8"}]}
    (tmp_path / "results" / "facts.json").write_text(json.dumps(facts))
    results = read_results(tmp_path)
    assert [e.measure for e in results.numbers] == ["max_cosine.mean", "delta_norm"]
    assert len(results.estimates) == 3
    assert results.numbers[0].key == COSINE.key
    assert results.adapters == ["r8", "r4"]


def test_unfinished_and_damaged_runs_are_refused_with_the_file_named(tmp_path: Path):
    folder = tmp_path / "results"
    with pytest.raises(InputError, match="is empty; give the folder of a finished run"):
        read_results(tmp_path)
    folder.mkdir()
    with pytest.raises(InputError, match=r"estimates\.parquet is missing: finish the run"):
        read_results(tmp_path)
    write_estimates([COSINE], folder)
    with pytest.raises(InputError, match=r"facts\.json is missing"):
        read_results(tmp_path)
    (folder / "facts.json").write_text("{")
    with pytest.raises(InputError, match=r"facts\.json is not valid JSON"):
        read_results(tmp_path)
    (folder / "facts.json").write_text("[]")
    with pytest.raises(InputError, match="one JSON object"):
        read_results(tmp_path)
    (folder / "estimates.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="no table of estimates"):
        read_results(tmp_path)


def test_runs_made_before_sanity_checks_had_their_name_are_read(make_run, plant):
    """Their facts call them gates, and each of them a gate."""
    facts = {"gates": [{"gate": "base restored", "passed": False, "detail": "3 bits"}]}
    run = make_run(plant(), **facts)
    path = run / "results" / "facts.json"
    before = json.loads(path.read_text())
    del before["sanity_checks"]
    path.write_text(json.dumps(before))
    (one,) = read_results(run).facts["sanity_checks"]
    assert (one["check"], one["passed"], one["detail"]) == ("base restored", False, "3 bits")
