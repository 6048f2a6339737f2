"""Fitting a tiny random model around its dictionaries: a whole study, stopped, resumed, refused."""

import html
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from peft import PeftModel
from typer.testing import CliRunner

import lorascope.report
from lorascope.activations.tokens import Window
from lorascope.cli import app
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.errors import InputError
from lorascope.fits import run as running
from lorascope.fits.card import read_card
from lorascope.models.load import load_base
from lorascope.progress import Reporter
from lorascope.report.result import read_results
from lorascope.results import Estimates
from lorascope.runners.pool import in_pool
from lorascope.runs import read_json
from lorascope.stages import Graph
from lorascope.studies.adapt import fits as fits_module
from lorascope.studies.adapt import state as state_module
from lorascope.studies.adapt import times as times_module
from lorascope.studies.adapt.cells import asked
from lorascope.studies.adapt.facts import disturbed
from lorascope.studies.adapt.plan import plan_adapt
from lorascope.studies.adapt.state import Adapted, spread
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.adapt.workflow import ADAPT, stages
from lorascope.studies.opening import open_study
from lorascope.workflows.tracking import LOGS

BLOCKS = 3


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """Sentences of a pattern that the tiny model's words can carry."""
    words = random.Random(0)
    lines = [
        json.dumps({"text": " ".join(f"w{words.randrange(20)}" for _ in range(30))})
        for _ in range(60)
    ]
    path = tmp_path_factory.mktemp("sentences") / "texts.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plain(tiny_checkpoint, sentences):
    """`plain(**changes)`: the tiny study as plain data."""

    def build(**changes):
        data = {
            "model": str(tiny_checkpoint("llama")),
            "device": "cpu",
            "texts": {"sources": [str(sentences)], "held_out": 0.3},
            "context": 32,
            "dictionaries": {
                "train": {
                    "sites": ["layers.0", "layers.1"],
                    "n_latents": [64],
                    "k": [4, 8],
                    "tokens": 2048,
                    "batch": 128,
                }
            },
            "fit": {
                "tokens": 1200,
                "batch": 4,
                "evaluations": 2,
                "random_draws": 2,
                "products": "float32",
                "lora": {"rank": 2, "blocks": "all", "rate": 0.01},
            },
            "experiments": {
                "ranks": [2],
                "baselines": ["affine+dictionary", "lora_next", "lora"],
                "several": [["layers.0", "layers.1"]],
                "times": {
                    "tokens": 1024,
                    "end_to_end_tokens": 800,
                    "shares": [0.5, 1.0],
                    "fit_tokens": 600,
                    "levels": 2,
                },
                "steering": {
                    "latents": list(range(6)),
                    "settings": {"texts": 8, "alphas": [1.0], "random": 2},
                },
            },
            "seeds": [0, 1],
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                data[section] = {**data[section], name: value}
            else:
                data[section] = value
        return data

    return build


@pytest.fixture(scope="module")
def study(plain):
    return AdaptStudy.parse(plain(), "tiny")


@pytest.fixture(scope="module")
def finished(study, quiet, tmp_path_factory):
    """The run folder of the whole study; copy it before changing it."""
    out = tmp_path_factory.mktemp("adapt") / "tiny"
    ADAPT.run(study, out, quiet, "lorascope adapt tiny.yaml")
    return out


def test_in_two_processes_and_written_by_tensorboard_it_is_the_same(study, finished, tmp_path):
    run = tmp_path / "run"
    ADAPT.run(
        study, run, Reporter(quiet=True, track="tensorboard"), runner=in_pool(open_study, 2, 1)
    )
    pd.testing.assert_frame_equal(numbers(run), numbers(finished), check_exact=True)
    written = {file.parent.relative_to(run / LOGS) for file in (run / LOGS).rglob("events.*")}
    parts = {path.parts[0] for path in written}
    assert parts == {"dictionaries", "fits", "times"}
    assert {Path("times/topk"), Path("times/end_to_end"), Path("times/fit-0.5")} < written
    assert len([path for path in written if path.parts[0] == "fits"]) == len(
        [folder for folder in (run / "fits").iterdir() if folder.is_dir()]
    )


def stages_of(run):
    """Manifest entry and inode of every finished stage: both change when a stage is redone."""
    manifest = read_json(run / "manifest.json")["stages"]
    return {name: (entry, (run / name).stat().st_ino) for name, entry in manifest.items()}


def redone(before, run):
    after = stages_of(run)
    assert after.keys() == before.keys()
    return {name for name in before if before[name] != after[name]}


def numbers(run):
    """Every number of a run but those of the clock, which no two runs share."""
    found = Estimates.read(run / "results" / "estimates.parquet").to_frame()
    clock = found["measure"].isin(["adapt.time_to_loss", "adapt.speed_up"])
    return found[~clock].reset_index(drop=True)


def quick(plain, **changes):
    """A study of two fits."""
    experiments = {"ranks": [2], "baselines": [], "single_blocks": False, "tokens": False}
    data = plain(experiments={**experiments, "distances": False}, seeds=[0], **changes)
    data["dictionaries"] = {"train": {**data["dictionaries"]["train"], "sites": ["layers.1"]}}
    return AdaptStudy.parse(data, "quick")


def test_what_a_study_asks_for(study):
    found = asked(study, BLOCKS)
    assert list(found.dictionaries) == ["layers.0-64-k4", "layers.0-64-k8", "layers.1-64-k4"]
    assert found.reference.name == "layers.0-64-k4"
    counts = {name: len(cells) for name, cells in found.cells.items()}
    # 3 ways, 3 dictionaries, 2 blocks behind the site, 1 set, each with 2 seeds.
    assert counts == {"baselines": 6, "scaling": 6, "single": 4, "several": 2, "reference": 2}
    # LoRA around the reference serves three experiments, its next block two.
    assert len(found.fits) == 20 - 2 - 2 - 2
    assert len({cell.name for cell in found.fits}) == len(found.fits)
    more = study.experiments.model_copy(update={"ranks": (2, 3), "every_rank": False})
    some = asked(study.model_copy(update={"experiments": more}), BLOCKS).cells["scaling"]
    assert {cell.around for cell in some if cell.rank == 3} == {"layers.0-64-k4"}
    assert len(some) == 6 + 2
    train = study.dictionaries.train.model_copy(update={"grid": True})
    whole = study.dictionaries.model_copy(update={"train": train})
    assert len(asked(study.model_copy(update={"dictionaries": whole}), BLOCKS).dictionaries) == 4


def test_measured_windows_are_of_as_many_documents_as_possible():
    special = SimpleNamespace(all_special_ids=[0])
    windows = [Window([0, *[5] * 4], [], document) for document in (0, 0, 0, 1, 2, 2)]
    named = [replace(window, ids=[0, n + 1, 5, 5, 5]) for n, window in enumerate(windows)]
    # 4 tokens of each count: one window of every document, then the first document's second.
    kept = spread(named, special, 16)
    assert [(window.document, window.ids[1]) for window in kept] == [(0, 1), (1, 4), (2, 5), (0, 2)]
    assert [window.document for window in spread(named, special, 15)] == [0, 1, 2]
    assert len(spread(named, special, 1000)) == 6
    assert len(spread(named, special, 1)) == 1


def test_every_number_stands_in_the_results(finished, study):
    numbers = read_results(finished).estimates
    for measure in (
        *("adapt.cost_spliced", "adapt.cost_adapted", "adapt.general_loss", "adapt.kl_adapted"),
        *("adapt.tokens_worse", "adapt.distance", "adapt.time_to_loss", "adapt.compound_spliced"),
    ):
        assert len(numbers.select(measure)), measure
    fits = asked(study, BLOCKS).fits
    costs = numbers.select("adapt.cost_adapted")
    assert len(costs) == len(fits) == len({one.key for one in costs})
    assert {one.key.adapter for one in costs} == {cell.fit for cell in fits}
    assert not {one.measure for one in numbers if not one.nulls}
    # The study's margin, or a twentieth of what the splice costs where that is less.
    general = numbers.select("adapt.general_loss")
    assert all(0 < one.margin <= study.margin for one in general)
    assert all(one.verdict != "no verdict" for one in costs)


def test_fits_are_ordinary_adapters_and_leave_the_base_alone(finished, study):
    facts = read_results(finished).facts
    assert all(one["passed"] for one in facts["sanity_checks"])
    name = "layers.0-64-k4-lora-all-r2-s0"
    module, _ = load_base(study.model, device="cpu")
    peft = PeftModel.from_pretrained(module, str(finished / "fits" / name))
    assert any(p.abs().sum() > 0 for n, p in peft.named_parameters() if "lora_B" in n)
    card = read_card(finished / "fits" / name)
    assert card.held_out["adapted"].kl < card.held_out["spliced"].kl
    shown = {fit["name"]: fit for fit in facts["fits"]}[name]
    assert shown["blocks"] == [0, 1, 2]
    assert shown["curve"][-1]["kl"] == pytest.approx(card.held_out["adapted"].kl, rel=1e-5)


def test_the_report_says_it_and_remakes_from_results_alone(finished, tmp_path):
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert "Splicing layers.0-64-k4 costs" in page
    assert "lorascope adapt tiny.yaml" in page
    alone = tmp_path / "alone"
    shutil.copytree(finished / "results", alone / "results")
    assert lorascope.report.build(alone).read_text(encoding="utf-8") == page
    tables = {file.name for file in (alone / "report" / "tables").iterdir()}
    assert {"baselines.csv", "baselines.tex", "scaling.csv", "times.csv"} <= tables
    figures = {file.stem for file in (alone / "report" / "figures").glob("*.svg")}
    assert {"tokens", "adapt_distance", "times", "several", "steering"} <= figures
    assert {"losses", "adapt_euclidean"} <= figures
    assert any(name.startswith("steered_") for name in figures)
    # How to load the fit, where the paper's figures lie, and no cost that is alike in every row.
    assert "Load the fit" in page
    assert "88.14 %" in page
    assert "did not ask for it" not in page
    baselines = pd.read_csv(alone / "report" / "tables" / "baselines.csv")
    assert list(baselines)[:2] == ["Fitted", "Share closed"]
    assert "Cost, spliced" not in baselines


def test_the_page_in_a_browser(finished, looked_at):
    looked_at(finished / "report" / "index.html")


def test_nothing_is_done_twice_wherever_the_folder_lies(
    finished, study, quiet, tmp_path, monkeypatch, moved
):
    run = moved(finished, tmp_path)
    page = (run / "report" / "index.html").read_bytes()
    assert lorascope.report.build(run).read_bytes() == page
    before = pd.read_parquet(run / "results" / "estimates.parquet")

    def refuse(*_args, **_settings):
        raise AssertionError("fitted again")

    monkeypatch.setattr(fits_module, "fit", refuse)
    monkeypatch.setattr(state_module, "load_base", refuse)
    made = stages_of(run)
    ADAPT.run(study, run, quiet)
    assert stages_of(run) == made
    pd.testing.assert_frame_equal(before, pd.read_parquet(run / "results" / "estimates.parquet"))


# Two processes whose fits are followed are in the quick tests, with the same comparison.
@pytest.mark.slow
def test_several_processes_find_the_same_numbers(finished, study, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(study.yaml(), encoding="utf-8")
    out = tmp_path / "pool"
    options = ["--out", str(out), "--workers", "2", "--threads", "1", "--quiet"]
    ran = CliRunner().invoke(app, ["adapt", str(file), *options])
    assert ran.exit_code == 0, ran.output
    pd.testing.assert_frame_equal(numbers(out), numbers(finished), check_exact=True)
    for name in ("fits/layers.1-64-k4-lora-all-r2-s1", "dictionaries/layers.0-64-k8"):
        for file in (finished / name).glob("*.safetensors"):
            assert file.read_bytes() == (out / name / file.name).read_bytes(), file
    here, pool = (read_results(run).facts for run in (finished, out))
    assert here["made_from"] == pool["made_from"]
    for curve, points in here["times"].items():
        assert [p["loss"] for p in points] == [p["loss"] for p in pool["times"][curve]]


LORA = {"fits/layers.0-64-k4-lora-2-r2", "fits/layers.0-64-k4-lora-all-r2"}
LORA |= {"fits/layers.0-64-k4-lora-next-r2", "fits/layers.0-64-k8-lora-all-r2"}
LORA |= {"fits/layers.1-64-k4-lora-all-r2", "fits/2-sites-4a41b2-lora-all-r2"}
AFFINE = {"fits/layers.0-64-k4-affine-dictionary"}
DICTIONARIES = {"dictionaries/layers.0-64-k4", "dictionaries/layers.0-64-k8"}
DICTIONARIES |= {"dictionaries/layers.1-64-k4"}
STREAMS, STEERING = {"measures/streams"}, {"measures/steering"}
TOPK, END_TO_END, TIMED = {"times/topk"}, {"times/end_to_end"}, {"times/fit-0.5", "times/fit-1.0"}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"margin": 0.03}, set()),
        ({"experiments__times__levels": 3}, set()),
        ({"device": "auto"}, set()),
        ({"experiments__steering__latents": [1, 2]}, STEERING),
        ({"experiments__times__fit_tokens": 700}, TIMED),
        ({"experiments__times__end_to_end_rate": 0.002}, END_TO_END),
        ({"experiments__times__tokens": 1536}, {*TOPK, *TIMED}),
        ({"fit__affine": {"rate": 0.01}}, AFFINE),
        (
            {"fit__lora": {"rank": 2, "blocks": "all", "rate": 0.02}},
            {*LORA, *STREAMS, *STEERING, *TIMED},
        ),
        ({"fit__random_draws": 3}, {*LORA, *AFFINE, *STREAMS, *STEERING, *TIMED}),
        ({"fit__clip": 0.5}, {*LORA, *AFFINE, *STREAMS, *STEERING, *END_TO_END, *TIMED}),
        (
            {"dictionaries__train__rate": 0.001},
            {*DICTIONARIES, *LORA, *AFFINE, *STREAMS, *STEERING, *TOPK, *TIMED},
        ),
        *(
            (change, {"texts", *DICTIONARIES, *LORA, *AFFINE, *STREAMS, *STEERING, *TOPK}
             | {*END_TO_END, *TIMED})
            for change in (
                {"measure_tokens": 50_000},
                {"context": 16},
                {"seed": 1},
                {"dtype": "bfloat16"},
                {"texts__held_out": 0.4},
            )
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_a_setting_makes_again(plain, quiet, tmp_path, change, again):
    def keys(data):
        changed = AdaptStudy.parse(data, "study")
        return Graph(stages(Adapted(changed, tmp_path, quiet))).keys

    data = plain()
    before = keys(data)
    ((path, value),) = change.items()
    *sections, name = path.split("__")
    level = data
    for section in sections:
        level[section] = dict(level[section])
        level = level[section]
    level[name] = value
    after = keys(data)
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    # The two seeds of a fit, or of what looks at it, go together.
    assert {name.removesuffix("-s0").removesuffix("-s1") for name in changed} == {
        *again,
        "results",
    }


def test_another_margin_measures_nothing_again(finished, study, quiet, tmp_path, monkeypatch):
    run = shutil.copytree(finished, tmp_path / "run")
    before = stages_of(run)
    monkeypatch.setattr(state_module, "load_base", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(lorascope.report, "build", lambda folder: folder)
    ADAPT.run(study.model_copy(update={"margin": 0.01}), run, quiet, redo=True)
    assert redone(before, run) == {"results"}
    general = read_results(run).estimates.select("adapt.general_loss")
    assert 0 < max(one.margin for one in general) <= 0.01


def test_a_dictionary_brought_along_is_known_by_its_content(plain, finished, quiet, tmp_path):
    mine = tmp_path / "mine"
    save(open_dictionary(finished / "dictionaries" / "layers.1-64-k4"), mine)
    data = quick(plain).plain()
    data["dictionaries"] = {"bring": {"mine": {"site": "layers.1", "address": str(mine)}}}
    study, run = AdaptStudy.parse(data, "brought"), tmp_path / "run"
    ADAPT.run(study, run, quiet)
    before = stages_of(run)
    shutil.copytree(mine, tmp_path / "moved")
    shutil.rmtree(mine)
    shutil.copytree(tmp_path / "moved", mine)
    ADAPT.run(study, run, quiet)
    assert redone(before, run) == set()
    state = Adapted(study, run, quiet)
    assert state.brought.keys() == {"mine"}
    other = open_dictionary(mine)
    other.decoder_bias.add_(0.5)
    shutil.rmtree(mine)
    save(other, mine)
    with pytest.raises(InputError, match="has changed since the study was read"):
        state.open("mine")
    ADAPT.run(study, run, quiet)
    fits = {f"fits/{cell.name}" for cell in asked(study, BLOCKS).fits}
    assert redone(before, run) == {"dictionaries/mine", *fits, "results"}


def test_curves_of_shares_that_fall_on_one_step_and_of_a_training_that_was_stopped(
    plain, quiet, tmp_path, monkeypatch
):
    times = {"tokens": 256, "end_to_end_tokens": 800, "fit_tokens": 300, "levels": 2}
    only = {"ranks": [], "baselines": [], "single_blocks": False, "tokens": False}
    only |= {"distances": False, "times": {**times, "shares": [0.2, 0.3, 1.0]}}
    study, run = AdaptStudy.parse(plain(experiments=only, seeds=[0]), "times"), tmp_path / "run"
    real, steps = times_module.train_end_to_end, []

    def train(*args, **settings):
        def watch(progress):
            steps.append(progress.step)
            if len(steps) == 4:
                raise KeyboardInterrupt

        observers = [*settings.pop("observers"), watch]
        return real(*args, **settings, observers=observers)

    monkeypatch.setattr(times_module, "train_end_to_end", train)
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(lorascope.report, "build", lambda folder: folder)
    with pytest.raises(KeyboardInterrupt):
        ADAPT.run(study, run, quiet)
    assert not (run / "times" / "end_to_end").exists()
    ADAPT.run(study, run, quiet)
    assert steps[:4] == [0, 1, 2, 3]
    assert steps[4] == 3
    curves = read_results(run).facts["times"]
    # Two steps of 128 rows: 0.2 and 0.3 of them are the first.
    assert [point["tokens"] for point in curves["TopK"]] == [128, 256]
    assert len(curves["TopK + LoRA"]) == 2
    assert len(curves["end to end"]) == 3
    assert not (run / "checkpoints").exists()


def test_times_taken_beside_other_stages_are_not_to_be_trusted():
    def made(begun, ended, host="here"):
        finished = f"2026-01-01T00:00:{ended:02d}+0000"
        return {"host": host, "seconds": float(ended - begun), "finished": finished}

    alone = {"fits/a": made(0, 10), "times/topk": made(10, 20), "times/end_to_end": made(20, 30)}
    assert disturbed(alone) == []
    assert disturbed({**alone, "fits/b": made(5, 9)}) == []
    assert disturbed({**alone, "fits/b": made(12, 18, "elsewhere")}) == []
    (line,) = disturbed({**alone, "fits/b": made(12, 18)})
    assert "times/topk" in line
    assert "end_to_end" not in line


def test_a_stop_loses_at_most_one_fit(plain, quiet, tmp_path, monkeypatch):
    study = quick(plain)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    ADAPT.run(study, whole, quiet)
    names = [cell.name for cell in asked(study, BLOCKS).fits]
    assert len(names) == 2
    real, calls, steps = fits_module.fit, [], []

    def fit(*args, **settings):
        calls.append(1)
        settings["observers"] = [*settings["observers"], lambda now: steps.append(now.step)]
        if len(calls) == 2:

            def stop(progress):
                if progress.step == 3:
                    raise KeyboardInterrupt

            settings["observers"] = [*settings["observers"], stop]
        return real(*args, **settings)

    monkeypatch.setattr(fits_module, "fit", fit)
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        ADAPT.run(study, stopped, quiet)
    done = read_json(stopped / "manifest.json")["stages"]
    assert f"fits/{names[0]}" in done
    assert f"fits/{names[1]}" not in done
    # The fit that was stopped goes on from the step before.
    assert len(list((stopped / "checkpoints").glob("*.pt"))) == 1
    steps.clear()
    ADAPT.run(study, stopped, quiet)
    assert len(calls) == 3
    assert steps[0] == 3
    assert not (stopped / "checkpoints").exists()
    found, expected = (
        pd.read_parquet(run / "results" / "estimates.parquet") for run in (stopped, whole)
    )
    pd.testing.assert_frame_equal(found, expected)


def test_dictionaries_brought_along(plain, finished, quiet, tmp_path):
    trained = finished / "dictionaries" / "layers.1-64-k4"
    copy = tmp_path / "mine"
    save(open_dictionary(trained), copy)
    data = quick(plain).plain()
    data["dictionaries"] = {"bring": {"mine": {"site": "layers.1", "address": str(copy)}}}
    run = tmp_path / "run"
    ADAPT.run(AdaptStudy.parse(data, "brought"), run, quiet)
    (one,) = read_results(run).facts["dictionaries"]
    assert (one["name"], one["n_latents"], one["source"]) == ("mine", 64, str(copy))
    assert one["l0"] == pytest.approx(4, abs=0.5)
    data["dictionaries"]["bring"]["mine"]["site"] = "layers.0"
    with pytest.raises(InputError, match=r"layers\.1"):
        ADAPT.run(AdaptStudy.parse(data, "elsewhere"), tmp_path / "elsewhere", quiet)
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def thresholds(plain, finished, tmp_path):
    """`thresholds(several=…)`: a study around a brought dictionary with thresholds at layers.1."""
    trained = open_dictionary(finished / "dictionaries" / "layers.1-64-k4")
    parts = dict(trained.named_buffers())
    brought = tmp_path / "brought"
    save(JumpReluDictionary(**parts, threshold=torch.full((64,), 0.05), card=trained.card), brought)

    def build(distances=False, several=False, **fit):
        plainly = quick(plain).plain()
        train = {**plainly["dictionaries"]["train"], "sites": ["layers.0"], "k": [4]}
        bring = {"mine": {"site": "layers.1", "address": str(brought)}}
        plainly["dictionaries"] = {"bring": bring, "reference": "mine"}
        if several:
            plainly["dictionaries"]["train"] = train
            plainly["experiments"]["ranks"] = []
            plainly["experiments"]["several"] = [["layers.0", "layers.1"]]
        plainly["experiments"]["distances"] = distances
        plainly["fit"] |= fit
        return AdaptStudy.parse(plainly, "thresholds")

    return build


def test_fits_before_thresholds_are_refused_before_anything_is_trained(thresholds, quiet, tmp_path):
    for several in (False, True):
        with pytest.raises(InputError, match=r"block 0 acts on what the jumprelu .* blocks 2 to 2"):
            ADAPT.run(thresholds(several=several), tmp_path / "refused", quiet)
        assert not (tmp_path / "refused").exists()


def test_fits_before_thresholds_say_what_became_of_l0(thresholds, quiet, tmp_path):
    with pytest.warns(UserWarning, match="L0 can drift"):
        ADAPT.run(thresholds(distances=True, before_thresholds=True), tmp_path / "run", quiet)
    found = read_results(tmp_path / "run").facts
    (line,) = [line for line in found["warnings"] if "latents a token" in line]
    before = found["dictionaries"][0]["l0"]
    after = float(line.split(": ")[1].split()[0])
    assert after != pytest.approx(before, abs=0.05), "the fit did not move L0: nothing is tested"
    assert f"{before:.1f} without" in line
    assert line in html.unescape((tmp_path / "run" / "report" / "index.html").read_text("utf-8"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"fit__tokens": 3}, "a budget of 3 tokens is smaller than one step"),
        ({"fit__tokens": 60}, "smaller than one step"),
        ({"fit__seed": 4}, "seed is set by the study's seeds"),
        ({"seeds": [1, 1]}, "repeat"),
        ({"dictionaries": {}}, "no dictionary to fit around"),
        ({"experiments__several": [["layers.1", "1"]]}, "give different sites"),
        ({"experiments__several": [["layers.1", "layers.7"]]}, "layers.7"),
        (
            {"experiments__ranks": [], "experiments__baselines": ["lora_nex"]},
            "experiments.baselines.0",
        ),
        ({"measure_tokens": 200, "texts__held_out": 0.01}, "documents"),
        ({"dictionaries": {"bring": {"a": {"site": "9", "address": "x"}}}}, "layers.9"),
        (
            {
                "dictionaries": {"bring": {"a": {"site": "1", "address": "x"}}},
                "experiments__several": [],
                "experiments__times": None,
            },
            "x: no such folder",
        ),
    ],
)
def test_refusals_say_what_to_mend_and_leave_nothing(plain, quiet, tmp_path, change, line):
    out = tmp_path / "refused"
    with pytest.raises(InputError) as caught:
        ADAPT.run(AdaptStudy.parse(plain(**change), "study"), out, quiet)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_no_block_behind_the_last_site(plain, quiet, tmp_path):
    data = quick(plain).plain()
    data["dictionaries"]["train"]["sites"] = ["layers.2"]
    data["fit"]["lora"]["blocks"] = "after"
    with pytest.raises(InputError, match=r"no block to adapt: no block comes after layers\.2"):
        plan_adapt(AdaptStudy.parse(data, "last"))


def test_the_command_line_plans_runs_and_remakes(plain, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(AdaptStudy.parse(quick(plain).plain(), "x").yaml(), encoding="utf-8")
    runner = CliRunner()

    def call(*arguments):
        return runner.invoke(app, [str(each) for each in arguments])

    planned = call("plan", file)
    assert planned.exit_code == 0, planned.output
    assert "2 trained here, 0 brought along" in planned.output
    out = tmp_path / "run"
    ran = call("adapt", file, "--out", out, "--quiet", "--set", "fit.tokens=400")
    assert ran.exit_code == 0, ran.output
    assert ran.output.strip().endswith("index.html")
    again = call("report", out)
    assert again.exit_code == 0
    (fit,) = (out / "fits").glob("*k8*")
    weights = (fit / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(fit)
    listed = json.loads(call("stages", out, "--json").output)
    assert [one["stage"] for one in listed if not one["done"]] == [f"fits/{fit.name}"]
    assert [one["stage"] for one in listed if one["level"] == 0] == ["texts"]
    together = {one["made_with"] for one in listed if one["level"] == 1}
    assert together == {"dictionaries layers.1"}
    alone = call("stage", out, f"fits/{fit.name}", "--quiet")
    assert alone.exit_code == 0, alone.output
    assert (fit / "adapter_model.safetensors").read_bytes() == weights
    misspelt = call("adapt", file, "--set", "fit.token=3")
    assert isinstance(misspelt.exception, InputError)
    assert 'Did you mean "tokens"?' in str(misspelt.exception)
    missing = call("adapt", "--model", "embedded")
    assert "--dictionary, --texts" in str(missing.exception)
