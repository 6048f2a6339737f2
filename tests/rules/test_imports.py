"""What refuses input without a model answers before any large library is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
HEAVY = ("torch", "transformers", "peft", "pandas", "scipy", "altair", "numpy", "datasets")
SECONDS = 1.0
# Run before the code under test; after it says which of the libraries came in, and the time taken.
HARNESS = """
import atexit, json, os, sys
def tell():
    used = os.times()
    heavy = [name for name in {heavy} if name in sys.modules]
    print(json.dumps([heavy, used.user + used.system]), file=sys.__stderr__)
atexit.register(tell)
"""


def imported(code, cwd):
    """(exit code, large libraries imported, CPU seconds, stdout and stderr) of Python code."""
    done = subprocess.run(
        [sys.executable, "-c", HARNESS.format(heavy=HEAVY) + code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    *said, last = done.stderr.strip().splitlines()
    heavy, seconds = json.loads(last)
    return done.returncode, heavy, seconds, done.stdout + "\n".join(said)


def command(*arguments):
    line = ["lorascope", *map(str, arguments)]
    return f"sys.argv = {line!r}\nfrom lorascope.cli import main\nmain()"


def test_the_harness_sees_a_large_library(tmp_path):
    _, heavy, seconds, _ = imported("import pandas", tmp_path)
    assert {"pandas", "numpy"} <= set(heavy)
    assert seconds > 0


def test_every_shipped_study_is_parsed_without_them(tmp_path):
    code = f"""
from pathlib import Path
from lorascope.config import read_yaml
from lorascope.studies.evaluate.settings import EvaluateStudy
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.audit.study import AuditStudy
kinds = {{"audit": AuditStudy, "adapt": AdaptStudy, "latent": LatentStudy}}
kinds["evaluate"] = EvaluateStudy
for path in sorted(Path({str(STUDIES)!r}).glob("*.yaml")):
    study = kinds[read_yaml(path).get("workflow", "audit")].read(path)
    print(type(study).__name__, study.digest()[:8])
"""
    returned, heavy, seconds, said = imported(code, tmp_path)
    assert returned == 0, said
    kinds = {"AuditStudy", "AdaptStudy", "LatentStudy", "EvaluateStudy"}
    assert kinds == {line.split()[0] for line in said.splitlines()}
    assert heavy == []
    assert seconds < SECONDS


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["audit", "--help"]])
def test_help_and_version_need_none_of_them(arguments, tmp_path):
    returned, heavy, seconds, said = imported(command(*arguments), tmp_path)
    assert returned == 0, said
    assert heavy == []
    assert seconds < SECONDS


OPTIONS = ("--model", "embedded", "--sites", "1", "--texts", "embedded")
EVALUATION = ("evaluate", "--model", "embedded", "--texts", "embedded", "--adapter", "adapter")
EVALUATION += ("--dictionary", "layers.1=hf://owner/repository/folder")
EMBEDDED = STUDIES / "embedded.yaml"


def _finished_audit(folder):
    """What tells the adapters of a run: its study, its manifest, and what was captured."""
    captured = folder / "activations" / "held_out"
    captured.mkdir(parents=True)
    variants = ["base", "mine", "other", "mine~null0"]
    held = {"variants": variants, "nulls": ["mine~null0"]}
    (captured / "manifest.json").write_text(json.dumps(held))
    stages = {one: {} for one in ("sanity_checks", "activations/held_out", "results")}
    (folder / "manifest.json").write_text(json.dumps({"stages": stages}))
    study = {"model": "embedded", "sites": ["layers.1"], "texts": {"sources": ["embedded"]}}
    study |= {"dictionaries": {"seeds": [0]}, "measures": {}}
    (folder / "study.yaml").write_text(json.dumps(study))


def _tables(folder):
    """Tables that an evaluation cannot use."""
    (folder / "odd.csv").write_text("x,y\n1,2\n")
    (folder / "one.csv").write_text("text,label\n" + "".join(f"t{i},1\n" for i in range(40)))
    (folder / "few.csv").write_text("text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(20)))


def _finished_evaluation(folder):
    """What tells the subjects of a run."""
    (folder / "results").mkdir(parents=True)
    (folder / "study.yaml").write_text("workflow: evaluate\n")
    facts = json.dumps({"subjects": {"mine": {}, "other": {}}})
    (folder / "results" / "facts.json").write_text(facts)


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "nope.yaml"],
        ["adapt", "nope.yaml"],
        ["latent", "nope.yaml"],
        ["plan", "nope.yaml"],
        ["audit", EMBEDDED, "--set", "sead=1"],
        ["audit", EMBEDDED, "--set", "seed"],
        ["audit", EMBEDDED, "--sites", "layer-3"],
        ["audit", *OPTIONS, "--adapter", "a=./nope"],
        ["audit", *OPTIONS, "--adapter", "a=empty"],
        ["audit", *OPTIONS, "--adapter", "a=./nope", "--plan"],
        ["audit", EMBEDDED, "--texts", "nope.json"],
        ["audit", EMBEDDED, "--model", "./nope"],
        ["audit", EMBEDDED, "--dictionary", "layers.1=./nope"],
        ["audit", EMBEDDED, "--out", "other"],
        ["demo", "--out", "other"],
        ["adapt", "--model", "embedded", "--texts", "embedded", "--dictionary", "layers.1=./nope"],
        ["latent", "--model", "embedded", "--behaviour", "nope", "--site", "1"],
        ["latent", STUDIES / "latent_embedded.yaml", "--manner", "in verse"],
        ["evaluate", "nope.yaml"],
        ["evaluate", "--model", "embedded", "--dictionary", "layers.1=./nope"],
        ["evaluate", "--model", "embedded", "--fitted", "empty"],
        ["evaluate", "--model", "embedded", "--only", "cores"],
        [*EVALUATION, "--set", "probing.sets=[nope.csv]"],
        [*EVALUATION, "--only", "tpp", "--set", "tpp.source=nope.csv"],
        [*EVALUATION, "--only", "disentangling", "--set", "disentangling.source=./nope"],
        [*EVALUATION, "--only", "disentangling"],
        [*EVALUATION, "--only", "disentangling", "--set", "disentangling.source=odd.csv"],
        [*EVALUATION, "--only", "scr", "--set", "scr.source=odd.csv"],
        [*EVALUATION, "--only", "tpp", "--set", "tpp.source=odd.csv"],
        [*EVALUATION, "--sets", "odd.csv"],
        [*EVALUATION, "--sets", "one.csv"],
        [*EVALUATION, "--sets", "few.csv"],
        [*EVALUATION, "--only", "benchmarks", "--set", "benchmarks.include=nope"],
        [*EVALUATION, "--only", "autointerp"],
        [*EVALUATION, "--only", "autointerp", "--judge", "m"],
        ["evaluate", "--model", "embedded", "--only", "probing"],
        ["compare", "evaluated", "evaluated:nope"],
        [*EVALUATION, "--only", "autointerp", "--judge", "local:"],
        [*EVALUATION, "--only", "autointerp", "--judge", "local:./nope"],
        ["train-adapter", "--ranks", "four"],
        ["train-adapter", "--records", "nope.json"],
        ["dictionary", "./nope"],
        ["check", "./nope"],
        ["check", "empty"],
        ["check", "empty", "--max-kl", "0.1"],
        ["check", "empty", "--require", "nice"],
        ["check", "adapter", "--model", "embedded", "--texts", "nope.json"],
        ["check", "adapter", "--model", "embedded", "--texts", "torn.jsonl"],
        ["check", "adapter", "--model", "embedded", "--draws", "-1"],
        ["scan", "nope"],
        ["read", "nope"],
        ["read", "adapter", "--nulls", "-1"],
        ["read", "adapter", "--ranks", "5"],
        ["read", "adapter", "--texts", "nope.json"],
        ["read", "adapter", "--texts", "torn.jsonl"],
        ["read", "adapter", "--out", "other"],
        ["read", "adapter", "--out", "other/letter.txt/deeper"],
        ["read", "adapter", "--out", "n" * 300],
        ["stages", "nope.yaml"],
        ["stages", "other/letter.txt"],
        ["stages", "empty"],
        ["stages", EMBEDDED, "--set", "seed=x"],
        ["stages", EMBEDDED, "--set", "model=./nope"],
        ["stages", EMBEDDED, "--out", "other"],
        ["stage", "empty", "results"],
        ["slurm", "nope.yaml"],
        ["card", "empty"],
        ["card", "adapter"],
        ["compare", "adapter", "adapter", "--draws", "-1"],
        ["compare", "adapter", "adapter", "--texts", "nope.json"],
        ["compare", "adapter", "adapter", "--out", "other/letter.txt/deeper"],
        ["compare", "nope", "nope"],
        ["compare", "adapter", "./adapter"],
        ["compare", "run:nope", "run:mine"],
        ["compare", "run", "run:mine"],
        ["features", "nope"],
        ["report", "nope"],
        ["behaviour", "make", "--topic", "maths", "--manner", "french", "--set", "siz=1"],
        ["behaviour", "measure", "nope"],
        ["export", "nope", "--out", "new"],
        ["export", "adapter", "--out", "other"],
        ["export", "adapter", "--out", "new", "--adapter", "nope"],
        ["export", "adapter", "--out", "new", "--model", "./nope"],
        ["export", "adapter", "--out", "new", "--texts", "nope.json"],
        ["selftest", "--quick", "--full"],
        ["selftest", "--read", "--preset", "nope"],
        ["selftest", "--read", "--model", "embedded", "--table", "nope.csv", "--plan"],
        ["selftest", "--read", "--model", "embedded", "--table", "torn.jsonl"],
        ["selftest", "--read", "--model", "./nope", "--table", "adapters.csv"],
        ["selftest", "--read", "--keep", "other/letter.txt/deeper"],
        ["publish", "nope", "me/saes"],
        ["publish", "empty"],
        ["init", "taken"],
    ],
    ids=lambda arguments: " ".join(Path(a).name[:20] for a in map(str, arguments)),
)
def test_wrong_input_is_refused_at_once(arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "embedded"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "torn.jsonl").write_text('{"text": "a"}\n{"text": "b')
    _finished_audit(tmp_path / "run")
    _tables(tmp_path)
    _finished_evaluation(tmp_path / "evaluated")
    (tmp_path / "adapters.csv").write_text("adapter,label\nadapter,a\na/b,b\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    (tmp_path / "taken" / "studies").mkdir(parents=True)
    (tmp_path / "taken" / "studies" / "embedded.yaml").write_text("mine")
    returned, heavy, seconds, said = imported(command(*arguments), tmp_path)
    assert returned == 2, said
    assert len(said.strip().splitlines()) == 1
    assert heavy == []
    assert seconds < SECONDS
