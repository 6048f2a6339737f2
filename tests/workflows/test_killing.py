"""A study killed at any moment ends with the same results as one that never was, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from lorascope.randomness import generator

TIMES = 10
# Their files say how long things took, or where they lie in time.
TIMED = {"manifest.json", "facts.json", "training.json", "time.json", "lorascope.json"}


@pytest.fixture
def start(tmp_path):
    """`start(run, *command)`: a process of its own that runs a study into a folder."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def begin(run, *command):
        return subprocess.Popen(
            [sys.executable, "-m", "lorascope", *command, "--quiet", "--out", str(run)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    return begin


def results(run):
    """{file: its bytes} of everything a run keeps but the report and what tells of time."""
    found = {}
    for path in sorted(run.rglob("*")):
        where = path.relative_to(run)
        if path.is_file() and path.name not in TIMED and where.parts[0] != "report":
            found[str(where)] = path.read_bytes()
    return found


def same(found, expected):
    assert found.keys() == expected.keys()
    return [name for name, content in expected.items() if found[name] != content]


def stop(process, by):
    """Stop a run by a signal; SIGTERM lets it clean up and say so."""
    os.killpg(process.pid, by)
    code = process.wait(120)
    # Before the command line is up nothing catches the signal.
    assert code in ((-by,) if by == signal.SIGKILL else (-by, 128 + by, 0))


def check(start, folder, *command):
    """Kill a study ten times at random, by turns with SIGKILL and SIGTERM, then let it end."""
    started = time.monotonic()
    assert start(folder / "whole", *command).wait() == 0
    whole = time.monotonic() - started
    expected = results(folder / "whole")
    assert any(name.endswith("estimates.parquet") for name in expected)
    assert any(name.endswith(".safetensors") for name in expected)
    run, killed, unfinished = folder / "killed", 0, 0
    # From while it is imported to near its end; a resumed run has less to do.
    for moment in (torch.rand(6 * TIMES, generator=generator(0, "moments")) * 0.8 + 0.15).tolist():
        process = start(run, *command)
        try:
            assert process.wait(moment * whole) == 0
        except subprocess.TimeoutExpired:
            stop(process, (signal.SIGKILL, signal.SIGTERM)[killed % 2])
            killed += 1
            unfinished += not (run / "results").exists()
            if killed == TIMES:
                break
        else:
            assert same(results(run), expected) == []
            shutil.rmtree(run)
    assert killed == TIMES
    assert unfinished >= 3
    assert start(run, *command).wait() == 0
    assert same(results(run), expected) == []
    assert not list(run.rglob("*partial*"))


@pytest.mark.slow
def test_an_audit_killed_at_random_moments_ends_the_same(start, study, tmp_path):
    (tmp_path / "study.yaml").write_text(study.yaml(), encoding="utf-8")
    check(start, tmp_path, "audit", str(tmp_path / "study.yaml"))


@pytest.mark.slow
def test_an_adapt_study_killed_at_random_moments_ends_the_same(start, tmp_path):
    check(start, tmp_path, "demo", "adapt", "--quick")
