"""Where dictionaries start: inside the span of low-rank rows, at a centre outliers do not move."""

import pytest
import torch

from lorascope.activations.mixing import TensorRows
from lorascope.randomness import generator
from lorascope.training.architectures import ReLU
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting
from lorascope.training.starts import active_subspace, geometric_median, sampled, start

D, RANK, ROWS = 64, 5, 3000


@pytest.fixture(scope="module")
def basis():
    return torch.linalg.qr(torch.randn(D, RANK, generator=generator(0))).Q


@pytest.fixture(scope="module")
def low_rank(basis):
    """Rows of rank 5 with a trace of noise, off centre."""
    random = generator(1)
    rows = torch.randn(ROWS, RANK, generator=random) @ basis.T
    return rows + 1e-3 * torch.randn(ROWS, D, generator=random) + 2.0


def test_the_active_subspace_is_the_rows_span(basis, low_rank):
    span = active_subspace(low_rank)
    assert span.shape == (D, RANK)
    assert torch.linalg.svdvals(span.T @ basis).min() > 0.999
    full = torch.randn(ROWS, D, generator=generator(2))
    assert active_subspace(full).shape == (D, D)


def test_directions_start_inside_the_subspace_or_anywhere(basis, low_rank):
    def inside(how):
        settings = ReLU(n_latents=100, start=how)
        directions = start(settings, TensorRows(low_rank), 2.0, generator(3)).directions
        torch.testing.assert_close(directions.norm(dim=1), torch.ones(100))
        return (directions @ basis).norm(dim=1)

    assert inside("subspace").min() > 0.999
    assert inside("isotropic").mean() < 0.5


def test_low_rank_rows_are_learnt_sooner_from_inside(low_rank):
    errors = {}
    for how in ("subspace", "isotropic"):
        settings = ReLU(n_latents=128, l1=0.02, start=how)
        learned = fit(settings, low_rank, fitting=Fitting(epochs=2, batch=128))
        errors[how] = (learned(low_rank) - low_rank).square().sum().item()
    assert errors["subspace"] < 0.8 * errors["isotropic"]


def test_the_bias_starts_at_mean_or_median(low_rank):
    rows = low_rank.clone()
    rows[:30] += 1000.0
    found = {
        how: start(ReLU(n_latents=8, bias=how), TensorRows(rows), 4.0, generator(0)).bias
        for how in ("mean", "median")
    }
    torch.testing.assert_close(found["mean"], rows.mean(0) / 4.0, rtol=1e-4, atol=1e-4)
    clean = low_rank.mean(0) / 4.0
    assert (found["median"] - clean).norm() < 0.1
    assert (found["mean"] - clean).norm() > 10


def test_geometric_median_by_hand():
    # of three points at equal angles about a fourth, the fourth; of three on a line, the middle one
    corners = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    assert geometric_median(corners).norm() < 1e-4
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 0.0]])
    torch.testing.assert_close(geometric_median(line), line[1], rtol=0, atol=0.05)


def test_samples_are_even():
    rows = TensorRows(torch.arange(100.0)[:, None])
    assert sampled(rows, 10).flatten().tolist() == list(range(0, 100, 10))
    assert len(sampled(rows, 1000)) == 100
