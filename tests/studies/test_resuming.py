"""A run goes on where it stopped, redoes what has changed, and nothing else."""

import shutil

import pandas as pd
import pytest

from lorascope.errors import InputError
from lorascope.report import build as real_report
from lorascope.results import Estimates
from lorascope.runs import read_json
from lorascope.studies.audit import effects, learning, measuring, state
from lorascope.studies.audit import weights as weighing
from lorascope.studies.audit import workflow as audit_module
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import AUDIT
from lorascope.studies.compare.finished import Finished

# Both read the model.
EFFECTS = ("effects/r2", "effects/r4", "features/layers.1-r2", "features/layers.1-r4")
MEASURES = "measures/layers.1"
DRIFT = ("drift/layers.1-r2", "drift/layers.1-r4")
CARRIERS = ("carriers/r2", "carriers/r4")
YARDSTICKS = "yardsticks/layers.1"
# Read the model too.
RECOVERED = ("recovered/layers.1-seed0", "recovered/layers.1-seed1")
# The tiny model's stream has a massive direction.
MASSIVE, WRITTEN = "massive/layers.1", "written/layers.1"

pytestmark = pytest.mark.usefixtures("no_report")


def stages(run):
    """Manifest entry and inode of every finished stage: both change when a stage is redone."""
    manifest = read_json(run / "manifest.json")["stages"]
    return {name: (entry, (run / name).stat().st_ino) for name, entry in manifest.items()}


def redone(before, run):
    after = stages(run)
    assert after.keys() == before.keys()
    return {name for name in before if before[name] != after[name]}


def estimates(run):
    return Estimates.read(run / "results" / "estimates.parquet").to_frame()


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model would be loaded."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(state, "load", refuse)


def test_a_finished_run_is_not_done_again(run, study, quiet, no_model):
    before = stages(run)
    AUDIT.run(study, run, quiet)
    assert redone(before, run) == set()


def test_a_run_goes_on_and_opens_wherever_its_folder_lies(
    finished_run, study, quiet, tmp_path, no_model, moved
):
    run = moved(finished_run, tmp_path)
    page = (run / "report" / "index.html").read_bytes()
    assert real_report(run).read_bytes() == page
    opened = Finished.open(run)
    assert set(opened._paths().values()) == {str(run / "adapters" / n) for n in ("r2", "r4")}
    assert opened.trace().keys() == Finished.open(finished_run).trace().keys()
    before = stages(run)
    shutil.rmtree(run / "results")
    AUDIT.run(study, run, quiet)
    assert redone(before, run) == {"results"}
    facts = read_json(run / "results" / "facts.json")
    assert [one["path"] for one in facts["adapters"]] == ["adapters/r2", "adapters/r4"]
    pd.testing.assert_frame_equal(estimates(run), estimates(finished_run))


def test_other_measures_redo_what_reads_them(run, study, quiet):
    plain = study.plain()
    plain["measures"] |= {"rows": 300}
    changed = AuditStudy.parse(plain, "test")
    with pytest.raises(InputError, match=r"another study \(differs in measures\.rows\)"):
        AUDIT.run(changed, run, quiet)
    before, old = stages(run), estimates(run)
    AUDIT.run(changed, run, quiet, redo=True)
    read = {MEASURES, MASSIVE, YARDSTICKS, "results"}
    assert redone(before, run) == {*EFFECTS, *RECOVERED, *DRIFT, *read}
    assert set(estimates(run)["measure"]) == set(old["measure"])
    # Every document is cut at one length, so the limit is met from below.
    assert estimates(run).query("measure == 'delta_norm'")["n"].between(250, 300).all()


def test_other_angles_are_measured_without_the_model(run, study, quiet, no_model):
    plain = study.plain()
    plain["measures"] |= {"angles_k": [4]}
    before = stages(run)
    AUDIT.run(AuditStudy.parse(plain, "test"), run, quiet, redo=True)
    assert redone(before, run) == {MEASURES, MASSIVE, "results"}
    assert set(estimates(run).query("measure == 'angle.mean'")["k"]) == {4}


def test_other_dictionaries_redo_themselves_and_what_reads_them(run, study, quiet):
    plain = study.plain()
    plain["dictionaries"]["architecture"] |= {"l1": 0.3}
    changed = AuditStudy.parse(plain, "test")
    before = stages(run)
    AUDIT.run(changed, run, quiet, redo=True)
    dictionaries = {name for name in before if name.startswith("dictionaries/")}
    assert len(dictionaries) == 20
    # Those of the ablation have a λ of their own.
    mine = {name for name in dictionaries if "l1=" not in name}
    read = {*EFFECTS, *RECOVERED, MEASURES, MASSIVE, WRITTEN, YARDSTICKS, "weights", "results"}
    assert redone(before, run) == mine | read | {*DRIFT, *CARRIERS}


def test_what_the_study_no_longer_asks_for_goes_without_the_model(run, study, quiet, no_model):
    plain = study.plain()
    plain["dictionaries"]["seeds"] = [0]
    before = stages(run)
    old = Estimates.read(run / "results" / "estimates.parquet")
    AUDIT.run(AuditStudy.parse(plain, "test"), run, quiet, redo=True)
    after = stages(run)
    gone = {name for name in before if name.endswith("seed1")}
    assert gone
    assert before.keys() - after.keys() == gone
    assert not any((run / name).exists() for name in gone)
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {MEASURES, MASSIVE, YARDSTICKS, "results"}
    new = Estimates.read(run / "results" / "estimates.parquet")
    ours = [[e for e in each if e.measure.startswith("yardstick.")] for each in (old, new)]
    assert ours[1]
    assert ours[1] == [e for e in ours[0] if e.key.seed == 0]


def test_a_refused_redo_keeps_the_study_that_was_there(run, study, quiet):
    plain = study.plain()
    plain["dictionaries"]["base"] = {"layers.0": "nowhere"}
    kept = (run / "study.yaml").read_text(encoding="utf-8")
    with pytest.raises(InputError):
        AUDIT.run(AuditStudy.parse(plain, "test"), run, quiet, redo=True)
    assert (run / "study.yaml").read_text(encoding="utf-8") == kept
    AUDIT.run(study, run, quiet)


def test_a_dictionary_that_was_deleted_comes_back_the_same(run, study, quiet, no_model):
    name = "dictionaries/layers.1-delta-r4-seed1"
    weights = (run / name / "sae_weights.safetensors").read_bytes()
    before = stages(run)
    shutil.rmtree(run / name)
    AUDIT.run(study, run, quiet)
    assert redone(before, run) == {name}
    assert (run / name / "sae_weights.safetensors").read_bytes() == weights


def test_activations_that_were_deleted_come_back_the_same(run, study, quiet):
    before, old = stages(run), estimates(run)
    shutil.rmtree(run / "activations")
    shutil.rmtree(run / "results")
    AUDIT.run(study, run, quiet)
    assert redone(before, run) == {"activations/probe", "activations/held_out", "results"}
    pd.testing.assert_frame_equal(estimates(run), old)


def stop_at(monkeypatch, module, name, call):
    """Let `module.name` be interrupted when it is called for the `call`-th time."""
    real, calls = getattr(module, name), []

    def interrupted(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)


@pytest.mark.parametrize(
    ("module", "name", "call", "unfinished"),
    [
        (audit_module, "collect", 2, "activations/held_out"),
        (learning, "fit_many", 2, "dictionaries/layers.1-delta-r2-seed0"),
        (learning, "save", 4, "dictionaries/layers.1-delta-r2-seed1"),
        (measuring, "_condition", 2, "measures/layers.1"),
        (effects, "_of_adapter", 2, "effects/r4"),
        (weighing, "_weigh", 1, "weights"),
        (audit_module, "write_estimates", 1, "results"),
    ],
)
def test_interrupted_runs_end_with_the_same_results(
    study, quiet, finished_run, tmp_path, monkeypatch, module, name, call, unfinished
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, module, name, call)
        with pytest.raises(KeyboardInterrupt):
            AUDIT.run(study, run, quiet)
    done = stages(run)
    assert unfinished not in done
    assert not (run / unfinished).exists()
    AUDIT.run(study, run, quiet)
    after = stages(run)
    assert all(after[stage] == entry for stage, entry in done.items())
    assert after.keys() == stages(finished_run).keys()
    pd.testing.assert_frame_equal(estimates(run), estimates(finished_run))
    assert not list(run.rglob("*partial*"))


def test_a_refused_study_leaves_nothing_and_the_folder_can_be_used(
    settings, save_adapter, study, quiet, tmp_path
):
    run = tmp_path / "run"
    wrong = AuditStudy.parse(settings(adapters={"r4": str(tmp_path / "typo")}), "test")
    with pytest.raises(InputError, match="typo"):
        AUDIT.run(wrong, run, quiet)
    assert not run.exists()
    run.mkdir()
    with pytest.raises(InputError, match="typo"):
        AUDIT.run(wrong, run, quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(InputError, match="not empty and not a run folder"):
        AUDIT.run(study, tmp_path / "mine", quiet)
    assert (tmp_path / "mine" / "notes.txt").read_text(encoding="utf-8") == "keep me"


def test_a_refused_study_keeps_what_was_there(run, study, quiet):
    (run / "activations" / "probe" / "manifest.json").write_text("{", encoding="utf-8")
    shutil.rmtree(run / MEASURES)
    with pytest.raises(InputError, match=r"manifest\.json: not readable"):
        AUDIT.run(study, run, quiet)
    assert (run / "results" / "estimates.csv").exists()
    assert (run / "adapters" / "r2").is_dir()
