"""Whole evaluations of the tiny model: stages, resuming, the page, the command, refusals."""

import json
import sys
from pathlib import Path

import pytest
import torch

import lorascope as ls
from lorascope import cli
from lorascope.activations.text import read_documents
from lorascope.commands.evaluating import evaluate_study
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.fits.fitting import fit
from lorascope.fits.parts import Lora
from lorascope.fits.settings import Adapting
from lorascope.models.load import load_base
from lorascope.progress import Reporter
from lorascope.report.result import read_results
from lorascope.studies.evaluate import state, subjects
from lorascope.studies.evaluate.page import COLUMNS, evaluation_tables
from lorascope.studies.evaluate.plan import plan_evaluate
from lorascope.studies.evaluate.settings import EvaluateStudy
from lorascope.studies.evaluate.workflow import EVALUATE
from lorascope.workflows import speed


@pytest.fixture(scope="module")
def made(tiny_checkpoint, identity_dictionary, tmp_path_factory):
    """A folder with a dictionary, texts and a labelled table, and a study of them."""
    folder = tmp_path_factory.mktemp("evaluate")
    save(identity_dictionary, folder / "dictionary")
    texts = [" ".join(f"w{(7 * i + 3 * j) % 50}" for j in range(12)) for i in range(120)]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    rows = ["text,label"]
    for i in range(80):
        words = " ".join(f"w{10 + (11 * i + 5 * j) % 37}" for j in range(6))
        rows.append(f"{words}{' w3 w3' if i % 2 else ' w4'},{'yes' if i % 2 else 'no'}")
    (folder / "labelled.csv").write_text("\n".join(rows))
    plain = {
        "model": str(tiny_checkpoint("llama")),
        "device": "cpu",
        "texts": {"sources": [str(folder / "texts.jsonl")], "held_out": 0.3},
        "context": 32,
        "subjects": {"mine": {"dictionaries": {"layers.1": str(folder / "dictionary")}}},
        "core": {"tokens": 300, "training_tokens": 300},
        "probing": {"sets": [str(folder / "labelled.csv")], "k": [1], "train": 40, "test": 40},
    }
    return folder, plain


def test_a_run_its_page_and_its_resuming(made, tmp_path):
    _, plain = made
    study = EvaluateStudy.parse(plain, "test")
    page = EVALUATE.run(study, tmp_path / "run", Reporter(quiet=True))
    results = read_results(tmp_path / "run")
    assert results.numbers.one("evaluate.kl_recovered", setting="zero ablation").value > 0.99
    (probed,) = results.numbers.select("evaluate.probe_accuracy")
    assert probed.key.topic == "labelled: yes"
    # the vocabulary of the tiny model spells no words: said, not fatal
    assert any("vocabulary spells 0 words" in line for line in results.facts["warnings"])
    tables = evaluation_tables(results)
    assert set(tables) == {"core", "probing"}
    (table,) = tables["probing"]
    cells = dict(zip(table.columns, table.rows[0][1], strict=True))
    # No column without a cell: nothing of another seed was given.
    assert table.columns == [name for name in COLUMNS if name != "Other seed"]
    assert cells["Floor"].value == 0.5
    assert cells["Shows from"].text != "–"
    text = page.read_text()
    assert "Sparse probing" in text
    assert "random-decoder dictionary" in text
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("stage.json")}
    assert {f.parent.name for f in before} == {"texts", "mine", "results"}
    EVALUATE.run(study, tmp_path / "run", Reporter(quiet=True))
    assert {f: f.stat().st_mtime_ns for f in before} == before
    with pytest.raises(InputError, match="another study"):
        EVALUATE.run(study.model_copy(update={"seed": 1}), tmp_path / "run", Reporter(quiet=True))


def test_the_command_prints_json_and_a_plan(made, tmp_path, monkeypatch, capsys):
    folder, plain = made
    options = [
        *("evaluate", "--model", plain["model"], "--texts", str(folder / "texts.jsonl")),
        *("--dictionary", f"layers.1={folder / 'dictionary'}", "--only", "core"),
        *("--set", "core.tokens=300", "--set", "core.training_tokens=300"),
        *("--set", "texts.held_out=0.3", "--set", "context=32", "--set", "device=cpu"),
        *("--out", str(tmp_path / "run")),
    ]
    monkeypatch.setattr(sys, "argv", ["lorascope", *options, "--plan"])
    cli.main()
    assert "core" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "argv", ["lorascope", *options, "--json"])
    cli.main()
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(tmp_path / "run" / "report" / "index.html")
    assert {row["measure"] for row in said["estimates"]} >= {"evaluate.fvu", "evaluate.loss"}
    (fvu,) = [row for row in said["estimates"] if row["measure"] == "evaluate.fvu"]
    assert fvu["nulls"][0]["null"] == "mean predictor"
    assert fvu["nulls"][0]["verdict"] == "below"
    assert fvu["site"] == "layers.1"


def test_the_command_takes_another_seed_as_a_reference(made, tmp_path, monkeypatch, capsys):
    folder, plain = made
    options = [
        *("evaluate", "--model", plain["model"], "--texts", str(folder / "texts.jsonl")),
        *("--dictionary", f"layers.1={folder / 'dictionary'}", "--only", "core"),
        *("--reseeded", f"layers.1={folder / 'dictionary'}", "--json"),
        *("--set", "core.tokens=300", "--set", "core.training_tokens=300"),
        *("--set", "texts.held_out=0.3", "--set", "context=32", "--set", "device=cpu"),
        *("--out", str(tmp_path / "run")),
    ]
    monkeypatch.setattr(sys, "argv", ["lorascope", *options])
    cli.main()
    said = json.loads(capsys.readouterr().out)["estimates"]
    (fvu,) = [row for row in said if row["measure"] == "evaluate.fvu"]
    # It is the same dictionary here: the level is the value itself.
    levels = {null["null"]: null["level"] for null in fvu["nulls"]}
    assert levels["dictionary of another seed"] == pytest.approx(fvu["value"])


def test_options_say_what_a_study_file_would():
    given = {
        "model": "m",
        "dictionaries": {"layers.1": "d"},
        "adapter": "a",
        "delta": True,
        "sets": ["labelled.csv"],
        "tasks": "embedded, other",
        "judge": "j",
        "only": "probing,benchmarks,autointerp",
    }
    study = evaluate_study(None, given)
    (subject,) = study.subjects.values()
    assert (subject.adapter, subject.delta, subject.dictionaries) == ("a", True, {"layers.1": "d"})
    assert study.asked == ("probing", "autointerp", "benchmarks")
    assert study.probing.sets == ("labelled.csv",)
    assert study.benchmarks.tasks == ("embedded", "other")
    assert study.autointerp.judge == "j"


def test_a_fit_of_adapt_with_it_and_without(made, identity_dictionary, cut, tmp_path):
    """A fit's folder alone is enough: its dictionaries are found in its run."""
    folder, plain = made
    run = tmp_path / "around"
    model, tokenizer = load_base(plain["model"], device="cpu")
    half = save_half(identity_dictionary, run / "dictionaries" / "half")
    settings = Adapting(lora=Lora(rank=2, rate=1e-2), tokens=400, batch=8, products="float32")
    arguments = {"model": plain["model"], "random_draws": 0, "evaluations": 0, "force": True}
    fit(model, tokenizer, {"layers.1": half}, *cut, run / "fits" / "one", settings, **arguments)
    facts = {"sites": ["layers.1"], "dictionaries": ["half"]}
    (run / "fits" / "one" / "fit.json").write_text(json.dumps(facts))
    assert [str(site) for site in subjects.around(run / "fits" / "one")] == ["layers.1"]
    done = ls.evaluate(
        plain["model"],
        {"sources": [str(folder / "texts.jsonl")], "held_out": 0.3},
        {"around": {"fitted": str(run / "fits" / "one")}},
        only=["core"],
        out=tmp_path / "run",
        quiet=True,
        device="cpu",
        context=32,
        core={"tokens": 300, "training_tokens": 300},
    )
    losses = {one.key.model: one.value for one in done.table.select("evaluate.loss")}
    assert set(losses) == {"original", "spliced", "unspliced", "adapted"}
    change = done.table.one("evaluate.change", about="evaluate.kl")
    kl = {one.key.model: one.value for one in done.table.select("evaluate.kl")}
    assert change.value == pytest.approx(kl["adapted"] - kl["spliced"], abs=1e-6)
    assert change.value < 0
    assert change.key.adapter == "one"
    recovered = done.table.select("evaluate.kl_recovered", model="adapted")
    assert {null.name for null in recovered[0].nulls} >= {"spliced, not adapted"}


def save_half(dictionary, folder):
    """A dictionary that knows the positive half of every axis."""
    encoder = dictionary.encoder.clone()
    encoder[:, 32:] = 0.0
    half = dictionary.with_tensors({"encoder": encoder})
    save(half, folder)
    return half


def test_what_cannot_be_evaluated_is_refused(made):
    _, plain = made
    subject = plain["subjects"]["mine"]

    def study(**changes):
        return EvaluateStudy.parse({**plain, **changes}, "test")

    with pytest.raises(InputError, match="not both"):
        study(subjects={"a": {**subject, "adapter": "x", "fitted": "y"}})
    with pytest.raises(InputError, match="one dictionary, and the adapter"):
        study(subjects={"a": {**subject, "delta": True}})
    with pytest.raises(InputError, match="no evaluation"):
        study(core=None, probing=None, absorption=None)
    with pytest.raises(InputError, match="even number"):
        study(autointerp={"judge": "x", "questions": 3})
    for section, option in (
        ({"autointerp": {}}, "--judge MODEL"),
        ({"disentangling": {"k": [1]}}, "--set disentangling.source=FILE"),
        ({"core": None, "absorption": None, "subjects": {"a": {}}}, "--dictionary site=address"),
    ):
        with pytest.raises(InputError, match=option):
            study(**section)
    with pytest.raises(InputError, match="use letters"):
        study(subjects={"a/b": subject})
    with pytest.raises(InputError, match=r"layers\.7"):
        plan_evaluate(study(subjects={"a": {"dictionaries": {"layers.7": "x"}}}))
    asked = plan_evaluate(study(autointerp={"judge": "j", "latents": 10}))
    assert "j is asked 60 questions at most: 20 explanations" in asked.questions[0]


def test_a_dictionary_of_another_width_is_refused_before_the_model_is_loaded(
    made, tmp_path, monkeypatch
):
    _, plain = made
    eye = torch.eye(16)
    save(ReluDictionary(eye, torch.zeros(16), eye.clone(), torch.zeros(16)), tmp_path / "narrow")
    monkeypatch.setattr(state, "load_base", lambda *_, **__: pytest.fail("loaded"))
    subjects = {"mine": {"dictionaries": {"layers.1": str(tmp_path / "narrow")}}}
    study = EvaluateStudy.parse({**plain, "subjects": subjects}, "test")
    with pytest.raises(InputError, match="rows of width 16, the model's are 32"):
        EVALUATE.run(study, tmp_path / "run", Reporter(quiet=True))


def test_what_an_adapter_was_trained_on_is_not_measured_on(made, tmp_path, save_adapter):
    """By the card that train-adapter writes; where nothing is left the refusal says why."""
    folder, plain = made
    documents = read_documents([str(folder / "texts.jsonl")])
    adapter = save_adapter(tmp_path / "adapter", target_modules=["q_proj"])
    subjects = {"tuned": {"adapter": str(adapter)}}
    study = EvaluateStudy.parse({**plain, "subjects": subjects, "probing": None}, "test")
    before = state.Evaluating(study, tmp_path / "run", Reporter(quiet=True)).texts
    seen = [document.digest for document in before.held_out[:5]]
    (adapter / "lorascope.json").write_text(json.dumps({"trained_on": seen}))
    after = state.Evaluating(study, tmp_path / "run", Reporter(quiet=True)).texts
    assert {d.digest for d in before.held_out} - {d.digest for d in after.held_out} == set(seen)
    learned = [document.digest for document in before.probe]
    (adapter / "lorascope.json").write_text(json.dumps({"trained_on": learned}))
    with pytest.raises(InputError, match=rf"{len(learned)} documents are left out.*keep_seen"):
        EVALUATE.run(study, tmp_path / "run", Reporter(quiet=True))
    assert len(documents) == len(before.held_out) + len(before.probe)


STUDIES = Path(__file__).parents[3] / "studies"


@pytest.mark.parametrize("file", sorted(STUDIES.glob("evaluate_*.yaml")), ids=lambda f: f.stem)
def test_shipped_studies_are_planned_offline(file, monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    study = EvaluateStudy.read(file)
    assert study.name == file.stem
    said = dict(plan_evaluate(study).lines())
    assert {f"  {name}" for name in study.asked} <= said.keys()
    assert ("judge" in said) == (study.autointerp is not None)
