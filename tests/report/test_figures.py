import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lorascope.estimates import Estimate
from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.figures import Figure, figures
from lorascope.report.result import Results, read_results

MakeRun = Callable[..., Path]
Plant = Callable[..., list[Estimate]]
PLACE = ["measure", "adapter", "site", "dictionary"]
NUMBERS = ["value", "low", "high", "chance", "chance_low", "chance_high"]


@pytest.fixture(scope="module")
def drawn(results: Results) -> list[Figure]:
    return figures(results)


def data_of(figure: Figure) -> list[dict[str, Any]]:
    return figure.spec["data"]["values"]


def test_all_the_figures_of_a_full_run_are_drawn(drawn: list[Figure]):
    assert [figure.key for figure in drawn] == [
        "response_loss",
        "delta_norm",
        "delta_norm_relative",
        "delta_rank",
        "relative_error",
        "improvement",
        "improvement_intervals",
        "overlap",
        "density",
        "dead_share",
        "max_cosine",
        "max_cosine_intervals",
        "angle",
        "angle_intervals",
        "cka_base_delta",
        "cka_base_adapted",
    ]


def test_every_plotted_number_is_in_the_results_tables(drawn: list[Figure], results: Results):
    estimates = results.estimates.set_index(PLACE)[NUMBERS]
    nulls = results.chance_levels.set_index([*PLACE, "null"])["level"]
    for figure in drawn:
        rows = data_of(figure)
        assert rows, figure.key
        for row in rows:
            place = tuple(row[column] for column in PLACE)
            if row.get("kind") == "null":
                assert row["level"] == nulls.loc[(*place, row["null"])]
            else:
                assert [row[c] for c in NUMBERS] == estimates.loc[place].tolist()


def fields_drawn(spec: dict[str, Any]) -> set[str]:
    layers = spec.get("spec", spec)["layer"]
    channels = [layer["encoding"] for layer in layers]
    return {
        channel["field"]
        for encoding in channels
        for name, channel in encoding.items()
        if name in ("y", "text") and "field" in channel
    }


def test_every_figure_draws_chance_with_the_number(drawn: list[Figure]):
    for figure in drawn:
        assert fields_drawn(figure.spec) & {"chance", "printed chance"}, figure.key
        assert all(r["chance"] is not None for r in data_of(figure) if r.get("kind") != "null")


def test_seed_pairs_stand_in_the_cosine_and_angle_figures(drawn: list[Figure]):
    for key in ("max_cosine_intervals", "angle_intervals"):
        rows = data_of(next(figure for figure in drawn if figure.key == key))
        references = [row for row in rows if row["kind"] == "reference"]
        assert {row["series"] for row in references} == {"base vs base"}
        assert len(references) == 3
        values = {row["series"] for row in rows if row["kind"] == "value"}
        assert values == {"delta vs base", "delta vs delta"}


def test_panels_share_one_colour_scale_and_units_are_in_titles(drawn: list[Figure]):
    error = next(figure for figure in drawn if figure.key == "relative_error")
    cells = error.spec["spec"]["layer"][0]["encoding"]["color"]["scale"]["domain"]
    values = [row["value"] for row in data_of(error)]
    assert {row["series"] for row in data_of(error)} == {"base", "delta", "base difference"}
    assert (cells[0], cells[-1]) == (min(values), max(values))
    units = {"(nats/token)", "(stream units)", "(ratio)", "(dimensions)", "(share)"}
    units |= {"(latents/token)", "(cosine)", "(degrees)", "(CKA)"}
    assert all(any(figure.title.endswith(unit) for unit in units) for figure in drawn)


def test_colours_of_values_of_both_signs_are_centred_on_zero(make_run: MakeRun, plant: Plant):
    rows = plant(measures=["improvement"])
    rows[0] = dataclasses.replace(rows[0], value=-0.5, interval=(-0.6, -0.4))
    drawn = figures(read_results(make_run(rows)))
    heat = next(figure for figure in drawn if figure.key == "improvement")
    assert heat.spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-0.5, 0.0, 0.5]


def test_axis_calls_adapters_by_rank_only_where_ranks_tell_them_apart(
    make_run: MakeRun, plant: Plant
):
    by_rank = figures(read_results(make_run(plant(adapters={"b": 32, "a": 4}))))[1]
    assert [row["label"] for row in data_of(by_rank)[::3]] == ["32", "4"]
    assert by_rank.spec["layer"][0]["encoding"]["x"]["scale"]["domain"] == ["4", "32"]
    named = figures(read_results(make_run(plant(adapters={"code": 8, "med": 8}))))[1]
    assert named.spec["layer"][0]["encoding"]["x"]["scale"]["domain"] == ["code", "med"]


def test_the_lowest_seed_is_drawn_and_said(make_run: MakeRun, plant: Plant):
    results = read_results(make_run(plant(seeds=(3, 1), measures=["overlap"])))
    (figure,) = figures(results)
    seed_one = results.estimates.query("seed == 1")["value"]
    assert sorted(row["value"] for row in data_of(figure)) == sorted(seed_one)
    assert "Seed 1;" in figure.caption


def test_files_are_written_for_every_figure(run_folder: Path, drawn: list[Figure]):
    folder = run_folder / "report" / "figures"
    for figure in drawn:
        svg = (folder / f"{figure.key}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<svg")
        assert figure.title.split(" (")[0] in svg
        assert (folder / f"{figure.key}.png").read_bytes().startswith(b"\x89PNG")
    assert EXPORT_CONFIG["background"] == "white"


def test_tables_are_the_results_split_by_topic(run_folder: Path, results: Results):
    folder = run_folder / "report" / "tables"
    keys = ("behaviour", "size", "reconstruction", "firing", "cosine", "angles", "cka")
    parts = [pd.read_csv(folder / f"{key}.csv") for key in keys]
    assert sum(map(len, parts)) == len(results.estimates)
    assert sorted(pd.concat(parts)["value"]) == pytest.approx(sorted(results.estimates["value"]))
    nulls = [pd.read_csv(folder / f"{key}_chance_levels.csv") for key in keys]
    assert sum(map(len, nulls)) == len(results.chance_levels)
