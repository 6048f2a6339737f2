"""Studies from Python: what is opened is what was found, and a study runs as its command does."""

import json
import random

import pandas as pd
import pytest

import lorascope as ls
from lorascope.errors import InputError
from lorascope.report.latents import read_latents
from lorascope.report.result import read_results


@pytest.fixture(scope="module")
def opened(finished_run):
    return ls.open_run(finished_run)


@pytest.fixture(scope="module")
def latents(opened):
    return opened.latents("r4", "layers.1")


def test_the_numbers_are_those_of_the_report(opened, finished_run):
    expected = read_results(finished_run).numbers.to_frame()
    pd.testing.assert_frame_equal(opened.estimates, expected)
    assert opened.table.select("improvement")
    assert str(finished_run) in repr(opened)
    shown = opened._repr_html_()
    assert opened.report.as_uri() in shown
    assert "<table" in shown


def test_every_figure_of_the_report_is_shown(opened, finished_run):
    on_page = {path.stem for path in (finished_run / "report" / "figures").glob("*.svg")}
    assert on_page == set(opened.figures)
    for name in opened.figures:
        assert opened.figure(name).to_dict(validate=False)["$schema"]
    with pytest.raises(InputError, match="no figure"):
        opened.figure("max_cosin")


def test_latents_come_in_the_browser_s_order(opened, latents, finished_run):
    (browsed,) = (b for b in read_latents(finished_run) if b.head["adapter"] == "r4")
    assert [one.index for one in latents] == browsed.columns["latent"]
    assert len(latents) == len(latents.to_frame())
    first = latents[0]
    record = browsed.block(0)[0]
    assert first.promotes == [(token, by) for token, by in record["up"]]
    assert [e.count("«") for e in first.examples] == [1] * len(record["examples"])
    assert latents[-1].index == browsed.columns["latent"][-1]
    assert [one.index for one in latents[:3]] == browsed.columns["latent"][:3]
    with pytest.raises(IndexError):
        latents[len(latents)]
    with pytest.raises(InputError, match="r4"):
        opened.latents("r5", "layers.1")


def test_a_latent_is_taken_out_of_the_model_it_is_of(opened, latents, finished_run, records):
    model = ls.load(
        str(opened.facts["model"]["id"]), {"r4": finished_run / "adapters" / "r4"}, device="cpu"
    )
    effect = latents[0].ablate(model, str(records), most=300).set_index("intervention")
    assert list(effect.columns) == ["kl", "loss", "other", "p"]
    assert len(effect) == 2
    assert (effect["kl"] > 0).all()
    assert effect["p"].between(0, 1).all()
    # The latent that writes least changes less than the one that writes most.
    least = latents[-1].ablate(model, str(records), most=300).set_index("intervention")
    assert least["kl"].sum() < effect["kl"].sum()


def test_deltas_iterate_and_fit_into_memory(opened):
    rows = opened.deltas("r4", "layers.1")
    parts = list(rows)
    assert sum(len(part) for part in parts) == len(rows) == len(rows.to_tensor())
    assert rows.to_tensor(7).shape == (7, rows.d_model)
    assert opened.dictionary("layers.1", "r4").d_model == rows.d_model
    assert opened.dictionary("layers.1").card.target == "base"


def test_an_audit_from_python_is_the_command_s(study, settings, finished_run, quiet, tmp_path):
    paths = {name: finished_run / "adapters" / name for name in ("r2", "r4")}
    plain = settings(adapters={name: str(path) for name, path in paths.items()})
    sections = {n: plain[n] for n in ("device", "capture", "dictionaries", "controls")}
    measures = {**plain["measures"], "effects": False, "weights": False}
    run = ls.audit(
        plain["model"],
        paths,
        plain["texts"],
        plain["sites"],
        out=tmp_path / "run",
        quiet=True,
        measures=measures,
        **sections,
    )
    assert run.folder == tmp_path / "run"
    assert set(run.estimates["adapter"]) == {"", "r2", "r4"}
    again = ls.audit(
        plain["model"],
        paths,
        plain["texts"],
        plain["sites"],
        out=tmp_path / "run",
        quiet=True,
        measures=measures,
        **sections,
    )
    pd.testing.assert_frame_equal(again.estimates, run.estimates)
    with pytest.raises(InputError, match=r"layers\.x"):
        ls.audit(plain["model"], paths, plain["texts"], ["layers.x"], out=tmp_path / "no")
    compared = ls.compare(f"{run.folder}:r2", ":r4", out=tmp_path / "both", quiet=True, repeats=2)
    assert compared.figures == ["densities"]
    assert compared.figure("densities").to_dict(validate=False)["mark"]


def test_a_fit_from_python(tiny_checkpoint, tmp_path):
    words = random.Random(0)
    lines = [" ".join(f"w{words.randrange(20)}" for _ in range(30)) for _ in range(60)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    train = {"sites": ["layers.0"], "n_latents": [64], "k": [4], "tokens": 512, "batch": 128}
    settings = {
        "device": "cpu",
        "context": 32,
        "seeds": [0],
        "fit": {"tokens": 300, "batch": 4, "evaluations": 0, "random_draws": 2},
        "experiments": {"ranks": [2], "baselines": [], "single_blocks": False},
    }
    settings["fit"]["lora"] = {"rank": 2, "blocks": "all"}
    sources = {"sources": [str(texts)], "held_out": 0.3}
    asked = (str(tiny_checkpoint("llama")), sources, {"train": train})
    out = {"out": tmp_path / "run", "quiet": True}
    run = ls.adapt(*asked, **out, **settings)
    assert run.folder == out["out"]
    losses = run.table.select("adapt.loss_spliced")
    original = run.table.select("adapt.loss_original")
    assert losses[0].value != original[0].value
    assert run.report.is_file()
    # The same call finds everything done.
    pd.testing.assert_frame_equal(ls.adapt(*asked, **out, **settings).estimates, run.estimates)
    with pytest.raises(InputError, match="no dictionary to fit around"):
        ls.adapt(*asked[:2], {}, out=tmp_path / "no")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is empty; give the folder of a finished run"):
        ls.open_run(tmp_path)
