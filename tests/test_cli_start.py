"""The command line at its beginning: versions, completion, files to begin from, plans."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import torch
import transformers

import lorascope as package
from lorascope.embedded import starters

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "studies"
WHEEL_BYTES = 22_000_000


def test_versions_are_those_of_the_libraries_in_use(lorascope):
    code, out, _ = lorascope("--version")
    assert code == 0
    assert dict(line.split() for line in out.splitlines()) == {
        "lorascope": package.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": metadata.version("peft"),
    }


def complete(line):
    """What bash would be offered after a line."""
    words = line.split(" ")
    asked = {"_LORASCOPE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [sys.executable, "-m", "lorascope"],
        env={**os.environ, **asked, "COMP_CWORD": str(len(words) - 1)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_bash_completes_commands_and_options():
    assert complete("lorascope a") == ["audit", "adapt"]
    assert complete("lorascope latent --beh") == ["--behaviour"]


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_the_completion_script_calls_this_program(option, tmp_path):
    # Without the look for the shell it runs in, which tests have none of, typer takes its name.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "lorascope", option, "bash"],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    installed = tmp_path / ".bash_completions" / "lorascope.sh"
    assert installed.exists() == (option == "--install-completion")
    script = installed.read_text() if installed.exists() else done.stdout
    assert "_LORASCOPE_COMPLETE=complete_bash" in script
    assert "lorascope" in script.splitlines()[-1].split()


def test_init_copies_every_study_and_example(lorascope, tmp_path):
    code, out, _ = lorascope("init", tmp_path / "mine")
    assert code == 0
    copied = {p.relative_to(tmp_path / "mine") for p in (tmp_path / "mine").rglob("*.*")}
    ours = [*STUDIES.glob("*.yaml"), *(ROOT / "examples").glob("*.py")]
    assert copied == {path.relative_to(ROOT) for path in ours}
    assert len(out.splitlines()) == len(ours)
    for path in ours:
        assert (tmp_path / "mine" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_init_overwrites_nothing_and_copies_nothing_beside_it(lorascope, tmp_path):
    mine = tmp_path / "studies" / "pythia-70m.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    code, out, err = lorascope("init", tmp_path)
    assert (code, out) == (2, "")
    assert str(mine) in err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [mine]
    assert mine.read_text() == "mine"


def test_init_sees_a_link_that_leads_nowhere(lorascope, tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "latent_adapter.py").symlink_to(tmp_path / "elsewhere")
    assert lorascope("init", tmp_path)[0] == 2
    assert not (tmp_path / "elsewhere").exists()


def test_the_wheel_is_told_to_hold_them_where_init_looks(tmp_path, monkeypatch):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for source, place in included.items():
        target = tmp_path / place
        target.mkdir(parents=True)
        for file in (ROOT / source).iterdir():
            if file.is_file():
                (target / file.name).write_bytes(file.read_bytes())
    before = starters.starters()
    monkeypatch.setattr(starters, "files", lambda name: tmp_path / name.replace(".", "/"))
    installed = starters.starters()
    assert installed.keys() == before.keys()
    assert all(file.is_relative_to(tmp_path) for file in installed.values())


@pytest.mark.slow
def test_init_works_from_a_built_wheel(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path)]
    built = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    if "hatchling" in built.stderr and built.returncode:
        pytest.skip("hatchling cannot be fetched here")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= WHEEL_BYTES
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    assert not (tmp_path / "site" / "lorascope" / "embedded" / "instructions").exists()
    done = subprocess.run(
        [sys.executable, "-m", "lorascope", "init", tmp_path / "mine"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for path in STUDIES.glob("*.yaml"):
        assert (tmp_path / "mine" / "studies" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("workflow", "study", "changes"),
    [
        ("audit", "embedded.yaml", ["--set", "dictionaries.seeds=[0]"]),
        ("adapt", "adapt_embedded.yaml", ["--set", "seeds=[0]"]),
        ("latent", "latent_embedded.yaml", ["--set", "seeds=[0]"]),
    ],
)
def test_a_workflow_plans_what_plan_plans(workflow, study, changes, lorascope, tmp_path):
    out = ["--out", tmp_path / "run"]
    code, wanted, err = lorascope("plan", STUDIES / study, *changes, *out)
    assert code == 0, err
    given = lorascope(workflow, STUDIES / study, *changes, *out, "--plan")
    # What a plan times by trial differs from one to the next.
    assert (given[0], shape(given[1])) == (0, shape(wanted))
    assert len(wanted.splitlines()) > 5
    assert shape(lorascope(workflow, STUDIES / study, *out, "--plan")[1]) != shape(wanted)
    assert not (tmp_path / "run").exists()


def shape(printed):
    """A plan's lines without the times in them."""
    return [line for line in printed.splitlines() if not timed(line)]


def timed(line):
    words = line.split()
    return any(unit in words for unit in ("s", "min", "h", "days"))


def test_a_plan_is_of_the_options_a_workflow_alone_has(lorascope, tmp_path):
    study, out = STUDIES / "latent_embedded.yaml", ["--out", tmp_path / "run"]
    printed = [lorascope("latent", study, "--rank", r, *out, "--plan")[1] for r in (1, 3)]
    one, three = (re.search(r"([\d,]+) weights at most", " ".join(p.split()))[1] for p in printed)
    assert 3 * int(one.replace(",", "")) == int(three.replace(",", "")) > 0


def test_a_plan_refuses_the_folder_of_another_study_as_the_command_does(lorascope, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    study = STUDIES / "embedded.yaml"
    code, out, err = lorascope("audit", study, "--out", tmp_path, "--plan")
    assert (code, out) == (2, "")
    assert "not a run folder" in err


def test_a_plan_is_no_json(lorascope):
    code, out, _ = lorascope("audit", STUDIES / "embedded.yaml", "--plan", "--json")
    assert (code, out) == (2, "")


def test_a_plan_takes_a_set_that_is_not_made_yet_and_a_run_does_not(lorascope, tmp_path):
    study = ["latent", "--model", "embedded", "--site", "3", "--behaviour", tmp_path / "later"]
    code, out, err = lorascope(*study, "--plan")
    assert code == 0, err
    assert out
    assert lorascope(*study, "--out", tmp_path / "run")[0] == 2
    assert not (tmp_path / "run").exists()
