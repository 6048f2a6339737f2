"""`--track`: all that a study trains is written, and every number is the same bit for bit."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorascope.behaviours.embedded import embedded_set
from lorascope.behaviours.records import write_set
from lorascope.progress import Reporter
from lorascope.results import Estimates
from lorascope.runners.pool import in_pool
from lorascope.runners.slurm import Jobs, write_jobs
from lorascope.stages import record_of
from lorascope.studies.audit.workflow import AUDIT
from lorascope.studies.behaviour.study import MeasureBehaviour
from lorascope.studies.behaviour.workflow import measure
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.latent.workflow import LATENT
from lorascope.studies.opening import open_study, prepare
from lorascope.workflows.adapters import run_training
from lorascope.workflows.settings import TrainStudy
from lorascope.workflows.tracking import LOGS

COMMANDS = (
    "audit studies/embedded.yaml",
    "adapt studies/adapt_embedded.yaml --plan",
    "latent studies/latent_embedded.yaml",
    "train-adapter",
    "behaviour measure",
    "stage somewhere results",
    "slurm studies/embedded.yaml",
)
QUIET = Reporter(quiet=True)
BOARD, WANDB = Reporter(quiet=True, track="tensorboard"), Reporter(quiet=True, track="wandb")
# The stages that train, by what makes them.
TRAINING = {"train", "train_lora"}


def trained(run):
    """Names of a run's stages that hold something trained in it."""
    found = {file.parent.relative_to(run).as_posix() for file in run.rglob("stage.json")}
    made = {name: record_of(run / name)["made_by"]["function"] for name in found}
    return {name for name in found if made[name].rsplit(".", 1)[1] in TRAINING}


def curves(run):
    """{stage: the steps that TensorBoard's files hold} of a run."""
    found = {}
    for file in (run / LOGS).rglob("events.*"):
        name = file.parent.relative_to(run / LOGS).as_posix()
        assert name not in found
        events = EventAccumulator(str(file.parent))
        events.Reload()
        [tag, *_] = [tag for tag in events.Tags()["scalars"] if tag != "seconds"]
        found[name] = [event.step for event in events.Scalars(tag)]
    return found


def numbers(run):
    return Estimates.read(run / "results" / "estimates.parquet").to_frame()


def same_weights(run, other):
    files = [file.relative_to(run) for file in run.rglob("*.safetensors")]
    assert files
    for file in files:
        assert (run / file).read_bytes() == (other / file).read_bytes(), file


def test_an_audit_in_two_processes_is_written_and_the_same(
    study, finished_run, no_report, tmp_path
):
    run = tmp_path / "run"
    AUDIT.run(study, run, BOARD, runner=in_pool(open_study, 2, 1))
    pd.testing.assert_frame_equal(numbers(run), numbers(finished_run), check_exact=True)
    same_weights(finished_run, run)
    found = curves(run)
    assert found.keys() == trained(run)
    assert {"adapters/r2", "adapters/r4"} < found.keys()
    assert found["adapters/r2"] == [5]
    assert not (finished_run / LOGS).exists()


def test_latent_adapters_are_written_by_wandb_offline_and_are_the_same(
    latent_settings, no_report, tmp_path
):
    settings = latent_settings(seeds=[0])
    settings["choices"] = {"dense": {"kind": "dense"}, "top m": {"kind": "top_m", "m": 6}}
    study = LatentStudy.parse(settings, "tiny")
    plain, run = tmp_path / "plain", tmp_path / "run"
    LATENT.run(study, plain, QUIET)
    LATENT.run(study, run, WANDB, runner=in_pool(open_study, 2, 1))
    pd.testing.assert_frame_equal(numbers(run), numbers(plain), check_exact=True)
    same_weights(plain, run)
    files = [file.read_bytes() for file in (run / LOGS / "wandb").glob("offline-run-*/*.wandb")]
    names = trained(run)
    assert {"dictionaries/layers.0", "adapters/top-m-s0"} < names
    assert len(files) == len(names)
    for name in names:
        assert sum(f"run/{name}".encode() in file for file in files) == 1, name


def test_adapters_of_train_adapter(tiny_checkpoint, records, tmp_path):
    training = {"ranks": [1, 2], "steps": 12, "context": 64, "held_out": 0.3}
    given = {"model": str(tiny_checkpoint("llama")), "device": "cpu", "records": [str(records)]}
    study = TrainStudy.parse({**given, "training": training}, "test")
    run_training(study, tmp_path / "plain", QUIET)
    run_training(study, tmp_path / "run", BOARD)
    same_weights(tmp_path / "plain", tmp_path / "run")
    assert curves(tmp_path / "run") == {
        "adapters/r1": [10, 12],
        "adapters/r2": [10, 12],
    }


def test_adapters_of_a_behaviour(tmp_path):
    data = embedded_set(train=40, held_out=8)
    folder = write_set(tmp_path / "set", data.records, data.facts)
    given = {"data": str(folder), "dense": [1], "training": {"steps": 2, "batch": 4}}
    study = MeasureBehaviour.parse({**given, "new_tokens": 2, "prompt": False}, "test")
    measure(study, tmp_path / "plain", QUIET)
    measure(study, tmp_path / "run", BOARD)
    same_weights(tmp_path / "plain", tmp_path / "run")
    assert [*curves(tmp_path / "run").values()] == [[2]]


def test_training_that_begins_anew_is_a_new_curve(tiny_checkpoint, records, tmp_path):
    given = {"model": str(tiny_checkpoint("llama")), "device": "cpu", "records": [str(records)]}
    training = {"ranks": [1], "steps": 4, "context": 64, "held_out": 0.3}
    study = TrainStudy.parse({**given, "training": training}, "test")
    for _ in range(2):
        run_training(study, tmp_path, BOARD)
        assert curves(tmp_path) == {"adapters/r1": [4]}
        shutil.rmtree(tmp_path / "adapters" / "r1")


def test_jobs_of_slurm_hand_it_on(study, tmp_path):
    prepare(study, tmp_path / "run")
    graph = open_study(tmp_path / "run", QUIET).graph
    write_jobs(graph, tmp_path / "run", Jobs(track="wandb"))
    scripts = [file.read_text() for file in (tmp_path / "run" / "slurm").glob("level-*.sbatch")]
    assert scripts
    assert all(" stage --quiet --track wandb " in text for text in scripts)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_tracker_is_refused_at_once(command, lorascope):
    code, _, said = lorascope(*command.split(), "--track", "tensorbord")
    assert code == 2
    assert "tensorboard" in said
