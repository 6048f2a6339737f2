"""The same numbers as SAEBench 0.6.0's own functions, where their formulas are right.

`golden_saebench.json` is written by scripts/golden_saebench.sh from the same made-up data.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lorascope.studies.evaluate.absorption import absorption_fraction, full_absorption
from lorascope.studies.evaluate.probing import best, probe
from lorascope.studies.evaluate.settings import Absorption
from lorascope.studies.evaluate.targeted import TrainedProbe, effects, zeroed

WIDTH, LATENTS = 6, 30


@pytest.fixture(scope="module")
def golden():
    return json.loads(Path(__file__).with_name("golden_saebench.json").read_text())


def test_probes(golden):
    """The same latents; accuracy within two rows of scikit-learn's, which stops a little early."""
    draw = np.random.RandomState(0)
    labels = np.arange(400) % 2
    codes = np.maximum(draw.randn(400, LATENTS), 0)
    for latent, by in ((3, 0.9), (7, 0.6), (11, 0.4)):
        codes[:, latent] += by * labels
    x, y = torch.tensor(codes, dtype=torch.float32), torch.tensor(labels)
    for k, theirs in golden["probing"].items():
        assert sorted(best(x[:240], y[:240], int(k)).tolist()) == theirs["latents"]
        ours = probe((x[:240], y[:240]), (x[240:], y[240:]), int(k))
        assert ours.accuracy == pytest.approx(theirs["accuracy"], abs=2 / 160 + 1e-9)
    assert set(golden["probing"]["5"]["latents"]) >= {3, 7, 11}


def test_targeted_changes(golden):
    """Pooled latents give what SAEBench computes token by token."""
    directions = torch.tensor(np.random.RandomState(1).randn(LATENTS, WIDTH), dtype=torch.float32)
    draw = np.random.RandomState(2)
    rows = [torch.tensor(draw.randn(20, 4, WIDTH), dtype=torch.float32)]
    rows.append(torch.tensor(draw.randn(20, 4, WIDTH) + 0.5, dtype=torch.float32))
    weight = torch.tensor(draw.randn(1, WIDTH), dtype=torch.float32)[0]
    both = torch.cat(rows)
    codes = torch.relu(both @ directions.T).mean(1)
    labels = torch.cat([torch.ones(20), torch.zeros(20)]).long()
    ours = effects(codes, labels, directions, TrainedProbe(weight, 0.0), signed=True)
    assert ours.tolist() == pytest.approx(golden["perturbing"]["effects"], abs=1e-5)
    left = zeroed(both[:20].mean(1), codes[:20], directions, ours, 5)
    expected = torch.tensor(golden["perturbing"]["zeroed"])
    assert torch.allclose(left, expected, atol=1e-5)


def test_tpp_is_the_same_arithmetic(golden):
    own = {"a": 0.9 - 0.6, "b": 0.8 - 0.7, "c": 0.95 - 0.5}
    others = {"a": (0.01 + 0.05) / 2, "b": 0.02 / 2, "c": 0.0}
    mine = sum(own[name] - others[name] for name in own) / 3
    assert golden["tpp"] == pytest.approx(mine)


def test_absorption(golden):
    draw = np.random.RandomState(3)
    rows = torch.tensor(draw.randn(40, WIDTH) * 2, dtype=torch.float32)
    direction = torch.tensor(draw.randn(WIDTH), dtype=torch.float32)
    codes = torch.tensor(np.maximum(draw.randn(40, LATENTS) * 2 - 1.5, 0), dtype=torch.float32)
    directions = torch.tensor(np.random.RandomState(1).randn(LATENTS, WIDTH), dtype=torch.float32)
    direction = direction / direction.norm()
    cosines = functional.cosine_similarity(directions, direction[None], dim=1)
    projection, settings = rows @ direction, Absorption()
    full, _ = full_absorption(codes, cosines, projection, [0, 1], settings)
    assert full.tolist() == golden["absorption"]["full"]
    fraction = absorption_fraction(codes, cosines, projection, [0, 1], settings)
    assert fraction.tolist() == pytest.approx(golden["absorption"]["fraction"], abs=1e-5)
    assert 0 < sum(golden["absorption"]["full"]) < 40
    assert len(set(golden["absorption"]["fraction"])) > 1
