"""A latent study's stages: what a change makes again, and that it matters not who makes them."""

import json
import shutil

import pandas as pd
import pytest
import torch

from lorascope import report
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.randomness import generator
from lorascope.results import Estimates
from lorascope.runners.local import run_here
from lorascope.runners.pool import in_pool
from lorascope.runs import read_json
from lorascope.stages import RECORD, Graph, record_of
from lorascope.studies.latent import workflow
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.latent.workflow import LATENT
from lorascope.studies.opening import open_study

ADAPTERS = [f"{choice}-s{seed}" for choice in ("dense", "raw-L1", "top-m") for seed in (0, 1)]
CUT = [name for name in ADAPTERS if not name.startswith("dense")]
DICTIONARY = "dictionaries/layers.0"
# What reads the dictionary or an adapter over it.
OVER_IT = {
    *("choice", "latents", "pairs", "results"),
    *(f"{kind}/{name}" for kind in ("adapters", "answers", "frontier") for name in ADAPTERS),
}
OF_THE_MODEL = {"adapters/lora", "answers/untouched", "answers/LoRA", "frontier/untouched"}
EVERYTHING = {DICTIONARY, "answers/prompted", *OVER_IT, *OF_THE_MODEL}
JUDGED = {
    *("latents", "pairs", "results", "frontier/untouched"),
    *(f"frontier/{name}" for name in ADAPTERS),
}
ANSWERS = {name for name in EVERYTHING if name.startswith("answers/")}


def keys_of(plain, folder, quiet):
    state = LatentRun(LatentStudy.parse(plain, "tiny"), folder, quiet)
    return Graph(workflow.stages(state)).keys


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"name": "other"}, {"results"}),
        ({"measures": {"sizes": [2]}}, {"results", *(f"frontier/{name}" for name in ADAPTERS)}),
        (
            {"measures": {"most": 5}},
            {"choice", "latents", "pairs", "results", *(f"answers/{name}" for name in CUT)},
        ),
        ({"measures": {"new_tokens": 5}}, JUDGED | ANSWERS),
        # The held-out loss of the ordinary adapter is taken on the prompts that are asked.
        ({"measures": {"prompts": 7}}, JUDGED | ANSWERS | {"adapters/lora"}),
        (
            {"measures": {"draws": 3}},
            {"latents", "pairs", "results", "frontier/dense-s0", "frontier/dense-s1"},
        ),
        ({"measures": {"pairs": [3]}}, {"pairs", "results"}),
        ({"measures": {"rows": 500}}, {"latents", "results"}),
        ({"measures": {"share": 0.5}}, {"results"}),
        ({"judge": "w4"}, JUDGED),
        # What the manner is stands in the adapters' cards.
        ({"manner": "in small words"}, OVER_IT | {"answers/prompted", "frontier/untouched"}),
        ({"train_dictionary": {"documents": 30}}, {DICTIONARY, *OVER_IT}),
        ({"seed": 1}, {DICTIONARY, *OVER_IT}),
        ({"training": {"steps": 9}}, OVER_IT),
        ({"lora": {"steps": 5}}, {"adapters/lora", "answers/LoRA", "results"}),
        ({"context": 60}, EVERYTHING),
        ({"dtype": "bfloat16"}, EVERYTHING),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_a_setting_makes_again(latent_settings, quiet, tmp_path, sections, expected):
    before, after = (
        keys_of(latent_settings(**changes), tmp_path, quiet) for changes in ({}, sections)
    )
    assert before.keys() == EVERYTHING
    assert {name for name in before if before[name] != after[name]} == expected


def test_inputs_are_known_by_what_they_hold(
    latent_settings, exchanges, write_lines, quiet, tmp_path
):
    """Files replaced in place: texts, records, the model, and a dictionary brought along."""
    behaviour, texts = tmp_path / "set.jsonl", tmp_path / "texts.jsonl"
    write_lines(behaviour, exchanges())
    lines = [{"text": " ".join(f"w{(7 * i + j) % 60}" for j in range(20))} for i in range(60)]
    write_lines(texts, lines)
    plain = latent_settings(behaviour=str(behaviour), train_dictionary={"texts": [str(texts)]})
    plain["model"] = str(shutil.copytree(plain["model"], tmp_path / "model"))

    def changed():
        nonlocal before
        now = keys_of(plain, tmp_path, quiet)
        found = {name for name in now if now[name] != before.get(name)}
        before = now
        return found

    before = keys_of(plain, tmp_path, quiet)
    assert changed() == set()
    write_lines(texts, [*lines[:-1], {"text": "w3 w4 w5"}])
    assert changed() == {DICTIONARY, *OVER_IT}
    other = exchanges()
    other[0]["response"] += " w7"
    write_lines(behaviour, other)
    assert changed() == EVERYTHING
    weights = tmp_path / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert changed() == EVERYTHING
    plain["dictionary"] = str(tmp_path / "brought")
    brought = f"{DICTIONARY}-brought"
    save_dictionary(tmp_path / "brought")
    assert changed() == {brought, *OVER_IT}
    # The same dictionary; its latents are linked to.
    save_dictionary(tmp_path / "brought", neuronpedia="mine/0-res")
    assert changed() == {"latents", "results"}
    save_dictionary(tmp_path / "brought", seed=1)
    assert changed() == {brought, *OVER_IT}


def save_dictionary(folder, seed=0, **card):
    directions = isotropic(40, 32, generator(seed))
    parts = (directions.T.clone(), torch.zeros(40), directions, torch.zeros(32))
    shutil.rmtree(folder, ignore_errors=True)
    save(ReluDictionary(*parts, card=Card(site="layers.0", **card)), folder)


# Two adapters, and no more training than that takes.
SMALL = {
    "seeds": [0],
    "training": {"steps": 4},
    "measures": {"sizes": [2], "latents": 2, "alternatives": 2, "draws": 2},
}


def small(latent_settings, **sections):
    plain = latent_settings(**SMALL, **sections)
    del plain["choices"]["raw L1"]
    return LatentStudy.parse(plain, "tiny")


# All that a stage may read of the study beside the settings in its arguments: what stands in
# them by content, and where things are.
IN_STATE = (
    *("model", "revision", "dtype", "device", "behaviour", "context", "site", "dictionary"),
    *("train_dictionary.texts", "train_dictionary.documents", "force"),
)


def test_two_processes_find_what_one_does_and_stages_read_what_they_say(
    latent_settings, quiet, tmp_path, monkeypatch
):
    monkeypatch.setattr(report, "build", lambda folder: folder)
    study = small(latent_settings)
    here, pool = tmp_path / "here", tmp_path / "pool"
    assert torch.get_num_threads() == 1

    def with_little(graph, run, state, reporter):
        little = LatentRun(study.only(*IN_STATE), run.folder, reporter)
        run_here(Graph(one for one in graph if one.name != "results"), run, little, reporter)
        run_here(graph, run, state, reporter)

    LATENT.run(study, here, quiet, "lorascope latent x.yaml", runner=with_little)
    runner = in_pool(open_study, workers=2, threads=1)
    LATENT.run(study, pool, quiet, "lorascope latent x.yaml", runner=runner)
    files = (run / "results" / "estimates.parquet" for run in (here, pool))
    tables = [Estimates.read(file).to_frame() for file in files]
    assert len(tables[0]) > 20
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    keys = Graph(workflow.stages(LatentRun(study, here, quiet))).keys
    for name in keys:
        assert record_of(here / name)["key"] == record_of(pool / name)["key"]
        for file in (here / name).iterdir():
            if file.name not in (RECORD, "facts.json"):
                assert file.read_bytes() == (pool / name / file.name).read_bytes(), file
    facts = [read_json(run / "results" / "facts.json") for run in (here, pool)]
    assert {key for key in facts[0] if facts[0][key] != facts[1][key]} <= {"seconds"}
    assert facts[0]["command"] == "lorascope latent x.yaml"
    assert facts[0]["made_from"] == {name: keys[name] for name in keys if name != "results"}


def test_a_dictionary_brought_along_is_read_and_kept_apart(latent_settings, quiet, tmp_path):
    save_dictionary(tmp_path / "brought")
    out, address = tmp_path / "run", str(tmp_path / "brought")
    study = small(latent_settings, dictionary=address, prompting=False)
    LATENT.run(study, out, quiet)
    facts = read_json(out / "results" / "facts.json")
    assert facts["dictionary"]["latents"] == 40
    assert facts["dictionary"]["address"] == address
    assert "prompted" not in facts["samples"][0]["answers"]
    assert not (out / DICTIONARY).exists()
    adapter = LatentAdapter.from_pretrained(out / "adapters" / "top-m-s0")
    assert adapter.dictionary.n_latents == 40
    names = [str(path.parent.relative_to(out)) for path in out.rglob(RECORD)]
    before = {name: (out / name).stat().st_ino for name in names}
    save_dictionary(tmp_path / "brought", seed=1)
    LATENT.run(study, out, quiet)
    after = {name: (out / name).stat().st_ino for name in names}
    assert {name for name in names if before[name] == after[name]} == OF_THE_MODEL
