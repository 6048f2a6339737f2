"""The examples run as their docstrings say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lorascope.progress import Reporter
from lorascope.workflows.adapters import run_training
from lorascope.workflows.settings import TrainStudy

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_audit_an_adapter(tmp_path):
    study = TrainStudy.parse(
        {"documents": 120, "training": {"ranks": [8], "steps": 4, "batch": 4}}, "test"
    )
    run_training(study, tmp_path / "adapters", Reporter(quiet=True))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "audit_an_adapter.py", tmp_path / "adapters/adapters/r8"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "above" in done.stdout
    assert "256 latents of width 192" in done.stdout


def test_latent_adapter(save_latent_adapter, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "latent_adapter.py", save_latent_adapter(tmp_path), "w3 w4 w5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "reads 10 and writes 10 latents" in done.stdout
    said = {line.partition(": ")[0]: line.partition(": ")[2] for line in done.stdout.splitlines()}
    assert said["base"] != said["latent"]


@pytest.mark.slow
def test_adapt_around_a_dictionary(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "adapt_around_a_dictionary.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = dict(line.split()[:2] for line in done.stdout.splitlines()[:4])
    assert float(losses["original"]) < float(losses["adapted"]) < float(losses["spliced"])
    assert "an ordinary PEFT adapter of rank 8" in done.stdout
