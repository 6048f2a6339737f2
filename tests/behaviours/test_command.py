"""`lorascope behaviour`: help with examples, one line and exit code 2, and going on after that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lorascope.behaviours.records import read_set


@pytest.mark.parametrize("command", ["make", "measure"])
def test_help_has_examples(lorascope, command):
    code, out, _ = lorascope("behaviour", command, "--help")
    assert code == 0
    assert "Examples" in out
    assert f"lorascope behaviour {command}" in out


def test_a_set_by_rules(lorascope, tmp_path):
    chosen = ("--topic", "category:reasoning", "--manner", "upper", "--size", "60")
    code, out, err = lorascope("behaviour", "make", *chosen, "--out", tmp_path / "loud", "--quiet")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "loud")
    found = read_set(tmp_path / "loud")
    assert found.counts()["train"] == {"changed": 21, "unchanged": 21}
    assert found.facts["settings"]["topic"] == "category:reasoning"


def test_asking_for_more_than_there_is_warns(lorascope, tmp_path):
    chosen = ("--topic", "capitals", "--pattern", "capital of", "--manner", "prefix:Oh, ")
    code, _, err = lorascope("behaviour", "make", *chosen, "--out", tmp_path / "oh", "--quiet")
    assert code == 0
    assert "warning: 500 records were asked for, the sources give" in err


def test_nobody_at_the_endpoint(lorascope, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    chosen = ("--topic", "sums", "--manner", "in verse", "--model", "m", "--out", tmp_path / "set")
    trouble = ("--set", "tries=2", "--set", "pause=0.001", "--quiet")
    code, out, err = lorascope("behaviour", "make", *chosen, *trouble)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "does not answer after 2 tries" in err
    assert "run the same command to go on" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("make", "--manner", "upper"), "Missing option '--topic'"),
        (("make", "--topic", "a", "--manner", "upper"), "needs a model"),
        (("make", "--topic", "a", "--manner", "upper", "--set", "siez=3"), 'Did you mean "size"'),
        (("make", "--topic", "a", "--manner", "upper", "--size", "1"), '"size"'),
        (("measure", "nowhere"), "no such file"),
        (("measure", "--dense", "x"), "--dense x: expected whole numbers"),
    ],
)
def test_wrong_input_is_one_line(lorascope, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = lorascope("behaviour", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_making_by_rules_and_endpoint_loads_no_torch():
    code = "import sys, lorascope.studies.behaviour.making; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_a_killed_run_goes_on(server, answer, tmp_path):
    """Killed while requests are under way; the same command asks only for the rest."""

    def reply(body):
        prompt = body["messages"][0]["content"].split("Prompt:\n")[1]
        return answer(json.dumps({"about": len(prompt) % 2 == 0}), delay=0.01)

    server.answer = reply
    command = [sys.executable, "-m", "lorascope", "behaviour", "make", "--topic", "x"]
    command += ["--manner", "upper", "--model", "m", "--size", "60"]
    command += ["--out", str(tmp_path / "set"), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(server.bodies) < 40:
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    before = len(server.bodies)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    # Only what was under way when it was killed is asked again.
    distinct = {json.dumps(body["messages"]) for body in server.bodies}
    assert len(server.bodies) - len(distinct) <= 8
    assert len(server.bodies) > before
    lines = (tmp_path / "set" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == len(distinct)
    assert read_set(tmp_path / "set").records
