import math
from pathlib import Path

import pandas as pd
import pytest

from lorascope.errors import InputError
from lorascope.report.result import (
    CHANCE_COLUMNS,
    ESTIMATE_COLUMNS,
    read_results,
    write_estimates,
)
from lorascope.results import Estimate, Key, Null

COSINE = Estimate(
    "max_cosine.mean",
    0.61,
    (0.60, 0.62),
    1490,
    "cosine",
    (Null("covariance-matched", 0.30, 0.29, 0.31), Null("isotropic", 0.615, 0.60, 0.63)),
    Key("r4", 4, "layers.5", 1, "delta vs base", "alive"),
)
NORM = Estimate("delta_norm", 18.5, (math.nan, math.nan), 7, "stream units")


def test_the_table_holds_the_number_and_its_headline_null(tmp_path: Path):
    write_estimates([COSINE, NORM], tmp_path)
    table = pd.read_csv(tmp_path / "estimates.csv", keep_default_na=False)
    assert tuple(table.columns) == ESTIMATE_COLUMNS
    cosine, norm = table.to_dict("records")
    assert cosine["value"] == 0.61
    assert (cosine["chance"], cosine["chance_low"], cosine["chance_high"]) == (
        "0.3",
        "0.29",
        "0.31",
    )
    assert (cosine["null"], cosine["verdict"]) == ("covariance-matched", "above chance")
    assert (cosine["rank"], cosine["seed"], cosine["setting"]) == ("4", "1", "alive")
    assert (norm["rank"], norm["null"], norm["low"]) == ("", "", "")
    assert norm["verdict"] == "no chance level"


def test_every_null_has_a_row_with_the_verdict_against_it(tmp_path: Path):
    write_estimates([COSINE, NORM], tmp_path)
    table = pd.read_parquet(tmp_path / "chance_levels.parquet")
    assert tuple(table.columns) == CHANCE_COLUMNS
    assert table["null"].tolist() == ["covariance-matched", "isotropic"]
    assert table["verdict"].tolist() == ["above chance", "at chance"]
    assert table["level"].tolist() == [0.30, 0.615]


def test_csv_and_parquet_agree(tmp_path: Path):
    write_estimates([COSINE, NORM], tmp_path)
    for name in ("estimates", "chance_levels"):
        text = pd.read_parquet(tmp_path / f"{name}.parquet").to_csv(index=False)
        assert text == (tmp_path / f"{name}.csv").read_text()
    assert not list(tmp_path.glob("*.part"))


def test_estimates_survive_the_round_trip(tmp_path: Path):
    write_estimates([COSINE, NORM], tmp_path / "results")
    (tmp_path / "results" / "facts.json").write_text('{"sites": ["layers.5"]}')
    results = read_results(tmp_path)
    cosine, norm = results.numbers
    assert cosine == COSINE
    assert math.isnan(norm.interval[0])
    assert norm.key == NORM.key
    assert results.adapters == ["r4"]


def test_no_estimates_is_a_table_without_rows(tmp_path: Path):
    write_estimates([], tmp_path)
    table = pd.read_parquet(tmp_path / "estimates.parquet")
    assert len(table) == 0
    assert str(table["rank"].dtype) == "Int64"


def test_unfinished_and_damaged_runs_are_refused_with_the_file_named(tmp_path: Path):
    folder = tmp_path / "results"
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
    pd.DataFrame({"measure": ["x"]}).to_parquet(folder / "estimates.parquet")
    with pytest.raises(InputError, match="has no column adapter, rank"):
        read_results(tmp_path)
    (folder / "estimates.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="not a readable parquet"):
        read_results(tmp_path)
