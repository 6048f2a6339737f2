"""A complete latent study of a tiny model: stages, numbers, page, resuming, refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lorascope import report
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.measures.definitions import DEFINITIONS
from lorascope.randomness import generator
from lorascope.report.left_out import left_out_lines, of_how_many
from lorascope.runs import read_json
from lorascope.studies.latent import workflow
from lorascope.studies.latent.answers import Cut
from lorascope.studies.latent.demo import latent_demo
from lorascope.studies.latent.plan import plan_latent
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.latent.workflow import LATENT


@pytest.fixture(scope="session")
def latent_run(latent_settings, quiet, tmp_path_factory):
    out = tmp_path_factory.mktemp("latent") / "run"
    LATENT.run(LatentStudy.parse(latent_settings(), "tiny"), out, quiet, "lorascope latent x.yaml")
    return out


def test_every_number_has_a_definition_and_something_to_stand_against(latent_run):
    table = pd.read_csv(latent_run / "results" / "estimates.csv")
    assert set(table["measure"]) <= set(DEFINITIONS)
    assert {
        *("behaviour.success", "behaviour.false_positives", "behaviour.general_loss"),
        *("latent.used", "latent.effective", "latent.largest", "latent.kept"),
        *("latent.ablation", "latent.mattering", "latent.overlap"),
        *("behaviour.distinct", "behaviour.information", "latent.kept_pairs"),
        *("latent.carried", "latent.topic_auc", "latent.style"),
    } <= set(table["measure"])
    assert not table["null"].isna().any()
    # Six latents are too few for an interval.
    without = set(table[table["verdict"] == "no verdict"]["measure"])
    assert without <= {"latent.ablation", "latent.mattering"}
    assert not table["value"].isna().any()
    asked = table[table["measure"] == "behaviour.success"]
    assert set(asked["adapter"]) == {"prompted", "LoRA", "dense", "raw L1", "top m"}
    # Each seed, and their mean under no seed.
    of_dense = asked[asked["adapter"] == "dense"]
    assert sorted(of_dense["seed"].fillna(-1)) == [-1, 0, 1]
    used = table[(table["measure"] == "latent.used") & (table["adapter"] == "top m")]
    assert (used["value"] == 6).all()
    kept = table[(table["measure"] == "latent.kept") & (table["adapter"] == "dense")]
    assert set(kept["size"].fillna(-1)) == {2, 6, -1}
    levels = pd.read_csv(latent_run / "results" / "chance_levels.csv")
    assert {"random latents", "untouched model", "latents like it", "prompted", "LoRA"} <= set(
        levels["null"]
    )


def test_what_it_leaves_can_be_used(latent_run):
    facts = json.loads((latent_run / "results" / "facts.json").read_text())
    assert facts["chosen"] in ("raw L1", "top m")
    used = facts["behaviour"]["train changed"]
    counted = {one["what"]: (one["used"], one["of"]) for one in facts["left_out"]}
    assert counted["train changed records"] == (used, 24) == (24, 24)
    named = facts["latents"]
    assert 1 <= len(named["read"]) <= 6
    assert {"latent", "weights", "density", "up", "down", "contexts", "link", "rise"} <= set(
        named["read"][0]
    )
    assert named["pairs"][0][0] in [one["latent"] for one in named["read"]]
    adapter = LatentAdapter.from_pretrained(latent_run / "adapters" / "top-m-s0")
    assert adapter.card.site == "layers.0"
    assert len(adapter.pairs()) == 36


def test_the_page(latent_run, tmp_path):
    page = (latent_run / "report" / "index.html").read_text(encoding="utf-8")
    assert "of the dense adapter's success" in page or "dense adapter&#39;s success" in page
    assert page.count("data-figure=") == 3
    # The first screen has a prompt, the untouched model's answer and the adapter's.
    head = page[: page.index("</header>")]
    facts = json.loads((latent_run / "results" / "facts.json").read_text())
    assert [f"<dt>{word}" for word in ("Prompt", "Untouched") if f"<dt>{word}" in head] == [
        "<dt>Prompt",
        "<dt>Untouched",
    ]
    assert "0.0063 each" in head
    pairs = pd.read_csv(latent_run / "report" / "tables" / "pairs.csv")
    assert list(pairs.columns) == ["read", "fires_at", "written", "promotes", "weight"]
    assert pairs[["read", "written", "weight"]].values.tolist() == facts["latents"]["pairs"]
    for name in ("frontier", "flatness"):
        assert (latent_run / "report" / "figures" / f"{name}.svg").stat().st_size > 1000
    # From its results alone, in another place, the same.
    copy = tmp_path / "copy"
    shutil.copytree(latent_run / "results", copy / "results")
    assert report.build(copy).read_text(encoding="utf-8") == page


def test_texts_are_not_markup(latent_run, tmp_path):
    shutil.copytree(latent_run / "results", tmp_path / "results")
    path = tmp_path / "results" / "facts.json"
    facts = json.loads(path.read_text())
    facts["samples"][0]["prompt"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(facts))
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_in_a_browser(latent_run, looked_at):
    looked_at(latent_run / "report" / "index.html")


def made(run):
    """Manifest entry and inode of every finished stage: both change when a stage is redone."""
    stages = read_json(run / "manifest.json")["stages"]
    return {name: (entry, (run / name).stat().st_ino) for name, entry in stages.items()}


def test_the_same_command_changes_nothing_and_a_change_makes_again_what_it_must(
    latent_run, latent_settings, quiet, tmp_path, moved
):
    run = moved(latent_run, tmp_path)
    page = (run / "report" / "index.html").read_bytes()
    assert report.build(run).read_bytes() == page
    opened = LatentAdapter.from_pretrained(run / "adapters" / "dense-s0")
    assert Path(opened.card.dictionary.found_from(run / "adapters" / "dense-s0")).is_relative_to(
        run
    )
    before = made(run)
    study = LatentStudy.parse(latent_settings(), "tiny")
    LATENT.run(study, run, quiet)
    assert made(run) == before
    more = LatentStudy.parse(latent_settings(measures={"sizes": [2]}), "tiny")
    with pytest.raises(InputError, match=r"holds another study \(differs in measures\.sizes\)"):
        LATENT.run(more, run, quiet)
    LATENT.run(more, run, quiet, redo=True)
    after = made(run)
    assert after.keys() == before.keys()
    redone = {name for name in before if before[name] != after[name]}
    assert redone == {"results", *(f"frontier/{name}" for name in study.adapters)}


def test_records_that_are_too_long_are_counted_and_cautioned_of(
    latent_settings, exchanges, write_lines, quiet, tmp_path
):
    lines = exchanges()
    for line in [one for one in lines if one["changed"] and one["split"] == "train"][:6]:
        line["prompt"] += " w20" * 90
    settings = latent_settings(behaviour=write_lines(tmp_path / "set.jsonl", lines), context=64)
    study = LatentStudy.parse({**settings, "measures": {"prompts": 5}}, "tiny")
    state = LatentRun(study, tmp_path / "run", quiet)
    assert state.counts(5) == {
        "train changed": {"records": 24, "used": 18, "too_long": 6, "beyond": 0},
        "train unchanged": {"records": 24, "used": 24, "too_long": 0, "beyond": 0},
        "held_out changed": {"records": 8, "used": 5, "too_long": 0, "beyond": 3},
        "held_out unchanged": {"records": 8, "used": 5, "too_long": 0, "beyond": 3},
    }
    sizes = {f"dense-s{seed}": Cut([True]) for seed in study.seeds}
    assert workflow._warnings(state, sizes) == []
    found = {one["what"]: one for one in workflow._left_out(state)}
    changed = found["train changed records"]
    assert (changed["used"], changed["of"]) == (18, 24)
    assert changed["reason"] == "6 longer than the context of 64 tokens"
    assert found["held-out changed records"]["reason"] == "3 beyond measures.prompts"
    cautions = left_out_lines({"left_out": list(found.values())})
    # A quarter of one side, three eighths of both held-out kinds; nothing of the fourth.
    assert ["25.0 %" in line for line in cautions] == [True, False, False]
    assert of_how_many({"left_out": [changed]}, "train changed records").startswith(" of 24 (6 ")
    assert of_how_many({"left_out": list(found.values())}, "train unchanged records") == ""


def test_refusals(latent_settings, exchanges, write_lines, quiet, tmp_path):
    out = tmp_path / "out"

    def refused(match, **sections):
        with pytest.raises(InputError, match=match) as caught:
            LATENT.run(LatentStudy.parse(latent_settings(**sections), "tiny"), out, quiet)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    empty = write_lines(tmp_path / "empty.jsonl", exchanges(changed=0))
    refused("no changed records in train", behaviour=empty)
    uneven = write_lines(tmp_path / "uneven.jsonl", exchanges(changed=6))
    refused("train is unbalanced, 6 changed and 24 unchanged records", behaviour=uneven)
    refused("has no judge: give judge", manner="in verse and rhyme", judge="")
    refused("sites go from layers.0 to layers.2", site="layers.9")
    refused(r"no such file; give a folder made by", behaviour="nowhere/set")
    directions = isotropic(40, 16, generator(0))
    narrow = ReluDictionary(directions.T.clone(), torch.zeros(40), directions, torch.zeros(16))
    save(narrow, tmp_path / "narrow")
    refused("reads rows of width 16, the model's are 32 wide", dictionary=str(tmp_path / "narrow"))
    directions = isotropic(40, 32, generator(0))
    parts = (directions.T.clone(), torch.zeros(40), directions, torch.zeros(32))
    save(ReluDictionary(*parts, card=Card(site="layers.2")), tmp_path / "elsewhere")
    refused("made for layers.2, not for layers.0", dictionary=str(tmp_path / "elsewhere"))
    refused("give one rank; it is a single adapter", lora={"ranks": [1, 2]})
    with pytest.raises(InputError, match='one named "dense" of kind dense is needed'):
        LatentStudy.parse(latent_settings(choices={"dense": {"kind": "top_m"}}), "tiny")
    with pytest.raises(InputError, match="there is no 'topm'"):
        LatentStudy.parse(latent_settings(choices={"x": {"kind": "topm"}}), "tiny")


def test_the_command_refuses_in_one_line(latent_settings, exchanges, write_lines, tmp_path):
    empty = write_lines(tmp_path / "empty.jsonl", exchanges(changed=0))
    plain = latent_settings(behaviour=empty)
    (tmp_path / "study.yaml").write_text(json.dumps(plain), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "lorascope", "latent", "study.yaml", "--out", "run", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no changed records in train" in done.stderr
    assert not (tmp_path / "run").exists()


def test_it_is_planned_without_weights(latent_settings, monkeypatch):
    study = LatentStudy.parse(latent_settings(), "tiny")
    cost = plan_latent(study)
    assert (cost.records.train, cost.records.held_out) == (48, 16)
    assert (cost.latents, cost.adapters, cost.steps) == (64, 6, 8)
    parts = {part.name: part for part in cost.parts}
    assert list(parts) == [
        "reading",
        "dictionary",
        "latent adapters",
        "LoRA",
        "answers",
        "ablation",
    ]
    assert dict(cost.lines())["adapters"] == "6 of 8 steps, 128 weights at most"
    more = plan_latent(study.model_copy(update={"seeds": (0, 1, 2, 3)}))
    ratio = {p.name: p.flops for p in more.parts}["latent adapters"] / parts[
        "latent adapters"
    ].flops
    assert ratio == pytest.approx(2)


@pytest.mark.parametrize("quick", [False, True])
def test_the_demo_is_a_study_of_what_ships(quick):
    study = latent_demo(quick)
    assert LatentStudy.parse(study.plain(), "demo") == study
    cost = plan_latent(study)
    assert not cost.notes
    assert cost.records.train > 256
    assert len(study.seeds) >= (2 if quick else 3)
    kinds = {choice.kind for choice in study.choices.values()}
    everything = {"dense", "raw_l1", "ratio_l1", "proximal", "top_m", "hard_concrete"}
    assert kinds == everything if not quick else {"dense", "raw_l1", "top_m"} <= kinds
