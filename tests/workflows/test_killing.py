"""A study killed at any moment ends with the same results as one that never was."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from lorascope.randomness import generator
from lorascope.results import Estimates

TIMES = 10


@pytest.mark.slow
@pytest.mark.parametrize("workflow", ["audit", "adapt"])
def test_killed_at_random_moments_a_study_ends_the_same(tmp_path, workflow):
    command = [sys.executable, "-m", "lorascope", "demo", workflow, "--quick", "--quiet", "--out"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}

    def start(run):
        return subprocess.Popen(
            [*command, str(run)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    started = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    whole = time.monotonic() - started
    # Each piece gets somewhat further than the last; together they take two whole runs at most.
    moments = torch.rand(TIMES, generator=generator(0, "moments")) * 0.4 * whole + 3
    killed = 0
    for moment in moments.tolist():
        process = start(tmp_path / "killed")
        try:
            assert process.wait(moment) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed > 1
    assert start(tmp_path / "killed").wait() == 0
    expected, found = (
        Estimates.read(tmp_path / run / "results" / "estimates.parquet").to_frame()
        for run in ("whole", "killed")
    )
    pd.testing.assert_frame_equal(found, expected)
