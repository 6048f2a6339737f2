"""A behaviour measured end to end: prompting, a dense LoRA, an adapter brought along."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorascope.behaviours.embedded import embedded_set
from lorascope.behaviours.records import read_set, write_set
from lorascope.errors import InputError
from lorascope.progress import Reporter
from lorascope.stages import Graph
from lorascope.studies.behaviour import workflow
from lorascope.studies.behaviour.making import BehaviourStudy, make
from lorascope.studies.behaviour.study import MeasureBehaviour
from lorascope.studies.behaviour.workflow import measure
from lorascope.workflows.run_folders import run_folder

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "small"
    made = embedded_set(train=160, held_out=64)
    return write_set(folder, made.records, made.facts)


def study(small, **changes):
    training = {"steps": 40, "batch": 12, "rate": 4e-3}
    given = {"data": str(small), "dense": [4], "training": training, "new_tokens": 14}
    return MeasureBehaviour.parse({**given, **changes}, "test")


@pytest.mark.slow
def test_a_dense_adapter_learns_the_behaviour_and_prompting_spills(small, tmp_path):
    found = measure(study(small), tmp_path / "out", QUIET)
    values = {
        (e.key.adapter, e.measure.removeprefix("behaviour."), e.key.topic): e
        for e in found.estimates
    }
    learned = values["lora-r4", "success", ""]
    assert learned.chance == 0
    assert learned.value >= 0.8
    assert learned.verdict == "above"
    assert values["lora-r4", "false_positives", ""].value <= 0.25
    assert values["prompting", "success", ""].value >= 0.8
    # French is asked for everywhere, and given where numbers are.
    assert values["prompting", "false_positives", "numbers"].value >= 0.5
    assert values["lora-r4", "general_loss", ""].n == values["prompting", "general_loss", ""].n
    results = tmp_path / "out" / "results"
    rows = [json.loads(line) for line in (results / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 64
    assert {"base", "prompting", "lora-r4"} <= rows[0].keys()
    shown = [row["lora-r4"]["shows"] for row in rows if row["changed"]]
    assert sum(shown) / len(shown) == learned.value


def test_an_adapter_of_another_base_is_refused_first_and_can_be_forced(
    small, tmp_path, monkeypatch
):
    folder = tmp_path / "a"
    folder.mkdir()
    path = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    weights = {f"{path}A.weight": torch.ones(2, 192), f"{path}B.weight": torch.ones(192, 2)}
    save_file(weights, folder / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": 2, "target_modules": ["layers.1.self_attn.q_proj"]}
    fields |= {"base_model_name_or_path": "org/other"}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    monkeypatch.setattr(workflow, "_dense", None)
    given = study(small, adapters={"mine": str(folder)})
    with pytest.raises(InputError, match=r'was made for "org/other".*--force'):
        measure(given, tmp_path / "out", QUIET)

    def reached(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "_dense", reached)
    with pytest.raises(KeyboardInterrupt):
        measure(given.model_copy(update={"force": True}), tmp_path / "out", QUIET)


def test_a_dense_adapter_is_trained_again_only_where_that_changes_it(small, tmp_path):
    data = read_set(small)

    def key(data=data, **changes):
        (found,) = Graph(workflow.stages(study(small, **changes), data)).keys.values()
        return found

    first = key()
    for same in ({"new_tokens": 9}, {"prompt": False}, {"batch": 3}, {"dense": [4, 4]}):
        assert key(**same) == first, same
    others = [{"dense": [2]}, {"context": 64}, {"dtype": "bfloat16"}, {"model": "embedded"}]
    others += [{"training": {"steps": 41, "batch": 12, "rate": 4e-3}}]
    keys = {key(**other) for other in others} | {key(replace(data, records=data.records[1:]))}
    assert len(keys | {first}) == len(others) + 2


def test_a_dense_adapter_is_not_trained_twice(small, tmp_path):
    given = study(small, dense=[1], training={"steps": 2, "batch": 4})
    data = read_set(small)
    with run_folder(tmp_path / "run", given) as run:
        folders = workflow._dense(run, given, data, QUIET)
        (folder,) = map(Path, folders.values())
        before = folder.stat().st_ino
        assert workflow._dense(run, given, data, QUIET) == folders
    assert list(folders) == ["lora-r1"]
    assert folder.stat().st_ino == before
    assert (folder / "adapter_model.safetensors").is_file()


def test_what_cannot_be_measured(small, tmp_path):
    records = read_set(small).records
    silent = write_set(tmp_path / "silent", records, {})
    with pytest.raises(InputError, match="does not say its manner"):
        measure(study(silent), tmp_path / "out", QUIET)
    with pytest.raises(InputError, match="has no judge"):
        measure(study(small, manner="in verse"), tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_a_local_model_writes_the_changed_responses(tmp_path):
    """The sibling, asked in its own words for French."""
    given = {r.prompt: r for r in embedded_set(train=320, held_out=100).records}
    path = tmp_path / "source.jsonl"
    rows = [{"prompt": r.prompt, "response": r.original or r.response} for r in given.values()]
    path.write_text("\n".join(map(json.dumps, rows)))
    pattern = r"\d (plus|minus|times) \d|(sum|product|difference) of \d"
    settings = {
        "sources": [str(path)],
        "topic": "sums",
        "pattern": pattern,
        "manner": "french",
        "local": "embedded-it",
        "own_answers": True,
        "size": 40,
        "attempts": 1,
        "max_tokens": 20,
        "least": 4,
    }
    made = make(BehaviourStudy.parse(settings, "test"), tmp_path / "set", QUIET)
    changed = [r for r in read_set(made.folder).records if r.changed]
    assert len(changed) >= 16
    assert all(r.response.startswith("Cela fait ") for r in changed)
    again = make(BehaviourStudy.parse(settings, "test"), tmp_path / "set", QUIET)
    assert (again.asked, again.remembered) == (0, made.asked)
