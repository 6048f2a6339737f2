"""Each architecture finds planted directions: sparse sums of them with 1 % noise, off centre."""

import pytest
import torch
from torch.nn import functional

from lorascope.geometry.cosine import max_cosine
from lorascope.randomness import generator
from lorascope.training.architectures import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK
from lorascope.training.dictionaries import Job, fit_many
from lorascope.training.settings import Fitting

D, PLANTED, N, ROWS, ACTIVE = 64, 96, 192, 20000, 4
ARCHITECTURES = [
    ReLU(n_latents=N, target_l0=6),
    TopK(n_latents=N, k=ACTIVE),
    BatchTopK(n_latents=N, k=ACTIVE),
    Matryoshka(n_latents=N, k=ACTIVE),
    JumpReLU(n_latents=N, target_l0=ACTIVE),
    Gated(n_latents=N, target_l0=6),
]


@pytest.fixture(scope="module")
def planted():
    return functional.normalize(torch.randn(PLANTED, D, generator=generator(0, "planted")), dim=1)


@pytest.fixture(scope="module")
def rows(planted):
    random = generator(0, "rows")
    active = torch.rand(ROWS, PLANTED, generator=random) < ACTIVE / PLANTED
    signal = (active * (1 + torch.rand(ROWS, PLANTED, generator=random))) @ planted
    noise = torch.randn(ROWS, D, generator=random) / D**0.5
    return 20 * (signal + 0.01 * signal.norm(dim=1).mean() * noise + 0.2)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.architecture)
def test_planted_directions_are_recovered(architecture, planted, rows):
    fitting = Fitting(epochs=12, batch=256)
    [(learned, history)] = fit_many([Job(architecture)], rows, fitting)
    [(barely, _)] = fit_many([Job(architecture)], rows, Fitting(epochs=0.01, batch=256))
    assert max_cosine(planted, barely.directions)[0].mean() < 0.6
    assert max_cosine(planted, learned.directions)[0].mean() > 0.9
    z = learned.encode(rows)
    l0 = (z > 0).float().sum(1).mean().item()
    wanted = getattr(architecture, "target_l0", None) or architecture.k
    # a row with fewer planted directions than k has fewer latents to find
    least = 0.9 if hasattr(architecture, "target_l0") else 0.8
    assert least * wanted < l0 < 1.1 * wanted
    fvu = (learned.decode(z) - rows).square().sum() / (rows - rows.mean(0)).square().sum()
    assert fvu < 0.25
    assert history.tail_mean("l0") == pytest.approx(l0, rel=0.15)
