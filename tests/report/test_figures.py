import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
from jsonschema import ValidationError

from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.figure import Figure
from lorascope.report.markup import embedded_json
from lorascope.report.result import Results, read_results
from lorascope.results import Estimate
from lorascope.results.labels import Of
from lorascope.stats.hierarchical import pooled_interval
from lorascope.studies.audit.sections import figures as report_figures
from lorascope.studies.audit.sections.figures import figures
from lorascope.studies.audit.sections.tables import topic_tables

MakeRun = Callable[..., Path]
Plant = Callable[..., list[Estimate]]
PLACE = ["measure", "adapter", "site", "dictionary"]
NUMBERS = ["value", "low", "high", "chance", "chance_low", "chance_high"]


@pytest.fixture(scope="module")
def drawn(results: Results) -> list[Figure]:
    return list(figures(results))


def test_every_measure_of_the_sites_has_a_map_and_a_figure_with_intervals(results: Results):
    plans = report_figures._PLANS
    maps = {m for plan in plans if plan.draw is report_figures._heatmap for m in plan.measures}
    lines = [plan for plan in plans if plan.draw is report_figures._intervals]
    at_sites = {e.measure for e in results.numbers if e.key.site}
    assert len(maps & at_sites) > 15
    for plan in lines:
        if at_sites & set(plan.measures):
            assert maps & set(plan.measures), f"{plan.key} has no map"
    assert maps <= {measure for plan in lines for measure in plan.measures}


def data_of(figure: Figure) -> list[dict[str, Any]]:
    return figure.spec["data"]["values"]


# Figures of their own kind, with tests of their own.
FURTHER = ["summary", "density_by_depth", "density_by_rank", "error_by_epoch", "ablation"]


@pytest.fixture(scope="module")
def regular(drawn: list[Figure]) -> list[Figure]:
    return [figure for figure in drawn if figure.key not in FURTHER]


def test_all_the_figures_of_a_full_run_are_drawn(drawn: list[Figure]):
    assert [figure.key for figure in drawn] == [
        "response_loss",
        "delta_norm",
        "delta_norm_intervals",
        "delta_norm_relative",
        "delta_norm_relative_intervals",
        "delta_rank_map",
        "delta_rank",
        "relative_error",
        "relative_error_intervals",
        "improvement",
        "improvement_intervals",
        "overlap_map",
        "overlap",
        "density_map",
        "density",
        "dead_share_map",
        "dead_share",
        "max_cosine",
        "max_cosine_intervals",
        "angle",
        "angle_intervals",
        "cka_base_delta_map",
        "cka_base_delta",
        "cka_base_adapted_map",
        "cka_base_adapted",
        "pursuit_map",
        "pursuit",
        "pursuit_gap_map",
        "pursuit_gap",
        "output_change",
        "recovery_loss_map",
        "recovery_loss",
        "recovery_kl_map",
        "recovery_kl",
        "latent_ablation_map",
        "latent_addition_map",
        "latent_kl",
        "latent_attributed_map",
        "latent_attributed",
        "weights_relative",
        "weights_rank",
        "intruders",
        "written_map",
        "written",
        *FURTHER,
    ]


def named(table: pd.DataFrame) -> pd.DataFrame:
    """With the dictionaries as figures call them."""
    pairs = zip(table["dictionary"], table["compared"], strict=True)
    return table.assign(dictionary=[str(Of(*pair)) for pair in pairs])


def test_every_plotted_number_is_in_the_results_tables(regular: list[Figure], results: Results):
    estimates = named(results.estimates.to_frame()).set_index(PLACE)[NUMBERS]
    nulls = named(results.estimates.nulls_frame()).set_index([*PLACE, "null"])["level"]
    for figure in regular:
        rows = data_of(figure)
        assert rows, figure.key
        for row in rows:
            place = tuple(row[column] for column in PLACE)
            if row.get("kind") == "null":
                assert row["level"] == nulls.loc[(*place, row["null"])]
            else:
                assert [row[c] for c in NUMBERS] == estimates.loc[place].tolist()


def test_specifications_keep_to_the_schema(drawn: list[Figure]):
    for figure in drawn:
        # Raises where a property is unknown or has a value it cannot have.
        alt.Chart.from_dict(figure.spec, validate=True)
    broken = {**drawn[0].spec, "mark": "no such mark"}
    with pytest.raises(ValidationError):
        alt.Chart.from_dict(broken, validate=True)


def fields_drawn(spec: dict[str, Any]) -> set[str]:
    layers = spec.get("spec", spec)["layer"]
    channels = [layer["encoding"] for layer in layers]
    return {
        channel["field"]
        for encoding in channels
        for name, channel in encoding.items()
        if name in ("y", "text") and "field" in channel
    }


def test_every_figure_draws_chance_with_the_number(regular: list[Figure]):
    for figure in regular:
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


def test_panels_share_one_colour_scale_and_units_are_in_titles(
    drawn: list[Figure], regular: list[Figure]
):
    error = next(figure for figure in drawn if figure.key == "relative_error")
    cells = error.spec["spec"]["layer"][0]["encoding"]["color"]["scale"]["domain"]
    values = [row["value"] for row in data_of(error)]
    assert {row["series"] for row in data_of(error)} == {"base", "delta", "base difference"}
    assert (cells[0], cells[-1]) == (min(values), max(values))
    units = {"(nats/token)", "(stream units)", "(ratio)", "(dimensions)", "(share)"}
    units |= {"(latents/token)", "(cosine)", "(degrees)", "(CKA)", "(correlation)"}
    units |= {"(vectors/module)"}
    assert all(any(figure.title.endswith(unit) for unit in units) for figure in regular)


def test_colours_of_values_of_both_signs_are_centred_on_zero(make_run: MakeRun, plant: Plant):
    rows = plant(measures=["improvement"])
    rows[0] = dataclasses.replace(rows[0], value=-0.5, interval=(-0.6, -0.4))
    drawn = list(figures(read_results(make_run(rows))))
    heat = next(figure for figure in drawn if figure.key == "improvement")
    assert heat.spec["spec"]["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-0.5, 0.0, 0.5]


def test_numbers_and_chance_levels_that_are_not_finite_leave_figures_whole(
    make_run: MakeRun, plant: Plant
):
    rows = plant()
    for i, estimate in enumerate(rows):
        if i % 5 == 1:
            rows[i] = dataclasses.replace(estimate, value=math.inf, interval=(math.nan, math.inf))
        elif i % 5 == 3:
            chances = tuple(
                dataclasses.replace(chance, level=math.inf, low=math.nan, high=math.inf)
                for chance in estimate.nulls
            )
            rows[i] = dataclasses.replace(estimate, nulls=chances)
    # The setting holds: without it JSON refuses what was planted.
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json([estimate.value for estimate in rows])
    drawn = list(figures(read_results(make_run(rows))))
    for figure in drawn:
        embedded_json(figure.spec)
        alt.Chart.from_dict(figure.spec, validate=True)
    marks = [row for figure in drawn if figure.key not in FURTHER for row in data_of(figure)]
    gaps = [row for row in marks if row.get("chance", 0) is None]
    assert 0 < len(gaps) < len(marks)
    assert all(row["chance_high"] is None for row in gaps)


def test_axis_calls_adapters_by_rank_only_where_ranks_tell_them_apart(
    make_run: MakeRun, plant: Plant
):
    by_rank = list(figures(read_results(make_run(plant(adapters={"b": 32, "a": 4})))))[1]
    assert [row["label"] for row in data_of(by_rank)[::3]] == ["32", "4"]
    assert by_rank.spec["layer"][0]["encoding"]["x"]["scale"]["domain"] == ["4", "32"]
    named = list(figures(read_results(make_run(plant(adapters={"code": 8, "med": 8})))))[1]
    assert named.spec["layer"][0]["encoding"]["x"]["scale"]["domain"] == ["code", "med"]


def test_two_seeds_are_drawn_as_their_mean_with_what_seeds_and_documents_leave_open(
    make_run: MakeRun, plant: Plant
):
    results = read_results(make_run(plant(seeds=(3, 1), measures=["overlap"])))
    figure = next(figures(results))
    for row in data_of(figure):
        both = results.estimates.select(adapter=row["adapter"], site=row["site"]).to_frame()
        assert row["value"] == pytest.approx(both["value"].mean())
        own = (both["high"] - both["value"]).mean()
        expected = pooled_interval(both["value"].tolist(), (own, own))
        assert (row["low"], row["high"]) == pytest.approx(expected)
    assert "Means over 2 seeds" in figure.caption


def test_three_seeds_give_an_interval_over_seeds(make_run: MakeRun, plant: Plant):
    results = read_results(make_run(plant(seeds=(0, 1, 2), measures=["overlap"])))
    figure = next(figures(results))
    row = data_of(figure)[0]
    values = results.estimates.select(adapter=row["adapter"], site=row["site"]).to_frame()
    own = (values["high"] - values["value"]).mean()
    expected = pooled_interval(values["value"].tolist(), (own, own))
    assert (row["low"], row["high"]) == pytest.approx(expected)
    assert "Means over 3 seeds" in figure.caption


def test_error_by_epoch_and_ablation_draw_what_the_run_holds(drawn: list[Figure]):
    by_key = {figure.key: figure for figure in drawn}
    points = [(row["epoch"], row["error"]) for row in data_of(by_key["error_by_epoch"])]
    assert points == [(1.0, 0.5), (2.0, 0.4)]
    assert {row["setting"] for row in data_of(by_key["ablation"])} == {"l1=0.05", "l1=0.15"}


def test_density_by_depth_and_by_rank_are_the_same_numbers(drawn: list[Figure], results: Results):
    rows = [data_of(f) for f in drawn if f.key in ("density_by_depth", "density_by_rank")]
    known = sorted(e.value for e in results.estimates.select("density", dictionary="delta"))
    assert [sorted(row["value"] for row in each) for each in rows] == [known, known]
    assert (
        {row["series"] for row in rows[0]}
        == {"4", "8", "16", "32"}
        == {row["label"] for row in rows[1]}
    )


def test_the_summary_has_the_four_panels_of_figure_7(drawn: list[Figure]):
    (summary,) = [figure for figure in drawn if figure.key == "summary"]
    titles = [panel["title"] for panel in summary.spec["concat"]]
    assert [title[:2] for title in titles] == ["A.", "B.", "C.", "D."]


def test_angles_at_several_k_are_drawn_as_lines(make_run: MakeRun, plant: Plant):
    rows = [
        dataclasses.replace(e, key=dataclasses.replace(e.key, k=k))
        for k in (64, 128)
        for e in plant(measures=["angle.mean"])
    ]
    drawn = list(figures(read_results(make_run(rows))))
    (lines,) = [figure for figure in drawn if figure.key == "angle_by_k"]
    assert {row["label"] for row in data_of(lines)} == {"64", "128"}
    assert {row["dictionary"] for row in data_of(lines)} == {"delta vs base"}


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
    keys = [table.topic.key for table in topic_tables(results)]
    assert keys[:4] == ["behaviour", "reading", "size", "reconstruction"]
    parts = [pd.read_csv(folder / f"{key}.csv") for key in keys]
    assert sum(map(len, parts)) == len(results.estimates)
    values = sorted(estimate.value for estimate in results.estimates)
    assert sorted(pd.concat(parts)["value"]) == pytest.approx(values)
    nulls = [pd.read_csv(folder / f"{key}_chance_levels.csv") for key in keys]
    assert sum(map(len, nulls)) == len(results.estimates.nulls_frame())
