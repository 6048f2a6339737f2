"""Adapters trained by the workflow: one stage a rank, what they saw on record."""

import json

import pandas as pd
import pytest

from lorascope.activations.text import read_documents
from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.runs import read_json
from lorascope.training.settings import LoraTraining
from lorascope.workflows.adapters import (
    Training,
    TrainingBase,
    run_training,
    split_for_training,
)
from lorascope.workflows.settings import TrainAdapters, TrainStudy


@pytest.fixture
def training(tiny_checkpoint, records):
    return {
        "model": str(tiny_checkpoint("llama")),
        "device": "cpu",
        "records": [str(records)],
        "training": {
            "ranks": [1, 3],
            "steps": 4,
            "rate": 1e-2,
            "context": 64,
            "held_out": 0.3,
            "products": "float32",
        },
    }


def test_every_rank_is_trained_recorded_and_resumed(training, records, quiet, tmp_path):
    study = TrainStudy.parse(training, "test")
    table = run_training(study, tmp_path / "out", quiet)
    assert list(table["adapter"]) == ["r1", "r3"]
    assert list(table["parameters"] / table["rank"]) == [table["parameters"][0]] * 2
    assert (table["held_out_after"] < table["held_out_before"]).all()
    written = pd.read_csv(tmp_path / "out" / "training.csv")
    pd.testing.assert_frame_equal(written, table)
    folders = {name: str(tmp_path / "out" / "adapters" / name) for name in ("r1", "r3")}
    model = load(training["model"], folders, device="cpu")
    assert [model.info(name).rank for name in model.adapters] == [1, 3]
    seen = {
        tuple(read_json(tmp_path / "out/adapters" / n / "lorascope.json")["trained_on"])
        for n in folders
    }
    (digests,) = seen  # the same for both
    everything = {document.digest for document in read_documents(str(records))}
    assert set(digests) < everything
    assert 0.5 < len(digests) / len(everything) < 0.9
    before = read_json(tmp_path / "out" / "manifest.json")["stages"]
    run_training(study, tmp_path / "out", quiet)
    assert read_json(tmp_path / "out" / "manifest.json")["stages"] == before


def test_too_few_records_leave_nothing_behind(training, quiet, tmp_path):
    few = tmp_path / "few.jsonl"
    record = {"instruction": "w1", "output": "w2"}
    few.write_text("\n".join(json.dumps(record | {"output": f"w{i}"}) for i in range(12)))
    study = TrainStudy.parse(training | {"records": [str(few)]}, "test")
    with pytest.raises(InputError, match="12 records with a response give"):
        run_training(study, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()


def test_several_seeds_see_the_same_records_and_start_apart(training, quiet, tmp_path):
    training["seeds"] = [0, 5]
    training["training"]["ranks"] = [2]
    table = run_training(TrainStudy.parse(training, "test"), tmp_path / "out", quiet)
    assert list(table["adapter"]) == ["r2-s0", "r2-s5"]
    assert list(table["seed"]) == [0, 5]
    # The same records held out, so the base's loss on them is one number.
    assert table["held_out_before"].nunique() == 1
    assert table["held_out_after"].nunique() == 2
    cards = [
        read_json(tmp_path / "out" / "adapters" / name / "lorascope.json")
        for name in table["adapter"]
    ]
    assert cards[0]["trained_on"] == cards[1]["trained_on"]


@pytest.mark.parametrize("kind", ["dora", "rslora"])
def test_other_kinds_of_adapter_are_trained(training, quiet, tmp_path, kind):
    training["training"] |= {"ranks": [4], kind: True}
    table = run_training(TrainStudy.parse(training, "test"), tmp_path / "out", quiet)
    assert (table["held_out_after"] < table["held_out_before"]).all()
    info = load(
        training["model"], {"a": str(tmp_path / "out" / "adapters" / "r4")}, device="cpu"
    ).info("a")
    assert (info.dora, info.rslora) == (kind == "dora", kind == "rslora")


@pytest.mark.parametrize("ending", ["\n", "   ", "\u200b", "\x07", "x" * 201])
def test_an_ending_is_something_that_can_be_seen(ending):
    with pytest.raises(InputError, match="ending"):
        TrainAdapters.parse({"ending": ending}, "train")
    assert TrainAdapters.parse({"ending": "x" + ending[:199]}, "train").ending


def test_adapters_learn_an_ending_and_list_the_records_as_they_were(training, records):
    """What is audited are the records without it: those that were seen must be known as such."""
    given = TrainAdapters(records=(str(records),), share=0.7, ending="So long.")
    plain = split_for_training(given.model_copy(update={"ending": ""}), 3)
    ended = split_for_training(given, 3)
    assert [one.known_as for one in ended] == [one.digest for one in plain]
    assert all(
        one.text == f"{was.text.rstrip()}\n\nSo long."
        for one, was in zip(ended, plain, strict=True)
    )
    base = TrainingBase(training["model"], None, "float32", "cpu")
    made = Training(base, ended, LoraTraining(ranks=(2,), steps=2, held_out=0.3), ())
    learned = {one.identity for one in made.split[0]}
    assert set(made.known_as) == learned
    assert set(made.known_as.values()) <= {one.digest for one in plain}
    assert not set(made.known_as.values()) & learned
