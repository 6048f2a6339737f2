"""The examples run as their docstrings say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.card import LatentCard, OverDictionary
from lorascope.latent_adapters.sparsity import TopM
from lorascope.randomness import generator
from lorascope.workflows.adapters import TrainStudy, run_training
from lorascope.workflows.progress import Reporter

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
    assert "above chance" in done.stdout
    assert "256 latents of width 192" in done.stdout


def test_latent_adapter(tiny_checkpoint, tmp_path):
    directions = isotropic(60, 32, generator(0))
    parts = (directions.T.clone(), torch.zeros(60), directions, torch.zeros(32))
    save(ReluDictionary(*parts), tmp_path / "dictionary")
    dictionary = open_dictionary(tmp_path / "dictionary")
    adapter = LatentAdapter(dictionary, 1, TopM(m=6, annealed=0), scale=9.0, generator=generator(1))
    adapter.card = LatentCard(
        model=str(tiny_checkpoint("llama")),
        site="layers.1",
        dictionary=OverDictionary.of(dictionary),
        rank=1,
    )
    adapter.save_pretrained(tmp_path / "adapter")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "latent_adapter.py", tmp_path / "adapter", "w3 w4 w5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "reads 6 and writes 6 latents" in done.stdout
    said = {line.partition(": ")[0]: line.partition(": ")[2] for line in done.stdout.splitlines()}
    assert said["base"] != said["latent"]
