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


def measured(process, run):
    """Seconds until a run has its results; then it writes its report."""
    started = time.monotonic()
    while not (run / "results").exists() and process.poll() is None:
        time.sleep(0.05)
    seconds = time.monotonic() - started
    assert process.wait() == 0
    return seconds


def check(start, folder, *command):
    """Kill a study ten times at random, by turns with SIGKILL and SIGTERM, then let it end.

    A study that has its results when it is killed ends, is compared, and begins anew.
    """
    whole = measured(start(folder / "whole", *command), folder / "whole")
    expected = results(folder / "whole")
    assert any(name.endswith("estimates.parquet") for name in expected)
    assert any(name.endswith(".safetensors") for name in expected)
    run, unfinished = folder / "killed", 0
    # From while it is imported to its end; a resumed run has less to do.
    moments = torch.rand(TIMES, generator=generator(0, "moments")) * 0.7 + 0.1
    for killed, moment in enumerate(moments.tolist()):
        process = start(run, *command)
        try:
            assert process.wait(moment * whole) == 0
        except subprocess.TimeoutExpired:
            stop(process, (signal.SIGKILL, signal.SIGTERM)[killed % 2])
        if not (run / "results").exists():
            unfinished += 1
            continue
        assert start(run, *command).wait() == 0
        assert same(results(run), expected) == []
        shutil.rmtree(run)
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
