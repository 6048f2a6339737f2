"""Singular values and vectors of sums and of random updates, against numpy and by hand."""

import math

import numpy as np
import pytest
import torch

from lorascope.measures import weight_spectra as spectra
from lorascope.models.updates import DenseUpdate, LoraUpdate, Svd
from lorascope.randomness import generator

SHAPES = [(30, 30, 4), (50, 20, 3), (20, 50, 3), (24, 18, 18)]
LARGE = [(520, 450, 6), (450, 520, 6), (460, 460, 6), (460, 440, 300)]


def matrices(out, inner, rank, size=1.0):
    random = generator(0, "matrices", out, inner, rank)
    W = torch.randn(out, inner, generator=random)
    B, A = torch.randn(out, rank, generator=random), torch.randn(rank, inner, generator=random)
    return W, LoraUpdate("m", size * B, A, 1.0)


@pytest.mark.parametrize(("out", "inner", "rank"), SHAPES + LARGE)
def test_sum_against_numpy(out, inner, rank):
    size = 0.5 * (out + inner) ** 0.5 / (out * inner) ** 0.5
    W, update = matrices(out, inner, rank, size)
    base, delta = spectra.decompose(W), update.svd()
    left, right = spectra.coordinates(delta.U, base.U), spectra.coordinates(delta.V, base.V)
    values, cosines = spectra.leading_of_sum(base.S, left, delta.S, right, 8)
    U0, S0, _ = np.linalg.svd(W.double().numpy(), full_matrices=False)
    U, S, _ = np.linalg.svd((W + update.dense()).double().numpy(), full_matrices=False)
    assert np.allclose(base.S, S0, rtol=1e-6)
    assert np.allclose(values, S[:8], rtol=1e-5)
    assert np.allclose(cosines, np.abs(U0.T @ U[:, :8]).max(axis=0), atol=2e-4)
    assert np.abs(U0.T @ U[:, :8]).max(axis=0).min() < 0.9  # the update does turn them


def test_decomposition_leaves_out_what_has_no_direction():
    W = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    found = spectra.decompose(W)
    assert found.S.tolist() == pytest.approx([5.0])
    assert found.U.abs().squeeze().tolist() == pytest.approx([1.0, 0.0])
    assert found.V.abs().squeeze().tolist() == pytest.approx([0.6, 0.0, 0.8])
    for W in (torch.randn(9, 5, generator=generator(1)), torch.randn(5, 9, generator=generator(1))):
        found = spectra.decompose(W)
        assert torch.allclose((found.U * found.S) @ found.V.T, W.double(), atol=1e-6)


def test_coordinates_keep_what_lies_outside():
    basis = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    vectors = torch.tensor([[0.6], [0.0], [0.8]], dtype=torch.float64)
    found = spectra.coordinates(vectors, basis)
    assert found.abs().squeeze().tolist() == pytest.approx([0.6, 0.0, 0.8])
    assert spectra.coordinates(vectors, torch.eye(3).double()).squeeze().tolist() == [0.6, 0.0, 0.8]


def test_effective_ranks_by_hand():
    # values 2 : 1 : 1, shares ½, ¼, ¼; of their squares 4 : 1 : 1, shares ⅔, ⅙, ⅙
    entropy, participation = spectra.effective_ranks(torch.tensor([2.0, 1.0, 1.0]))
    assert entropy == pytest.approx(math.sqrt(8))
    assert participation == pytest.approx(1 / (4 / 9 + 1 / 36 + 1 / 36))
    assert spectra.effective_ranks(torch.tensor([7.0])) == pytest.approx((1.0, 1.0))


def test_rounding_norm_is_the_norm_of_rounding():
    W = torch.randn(400, 300, generator=generator(0, "rounded")) * 0.02
    for dtype in (torch.bfloat16, torch.float16):
        rounded = W.to(dtype)
        error = float((W - rounded.float()).norm())
        assert spectra.rounding_norm(rounded) == pytest.approx(error, rel=0.03)
    # 1.5 in bfloat16 has neighbours 2⁻⁷ away, 0.75 half as far; 0 is exact
    few = torch.tensor([[1.5, 0.0], [0.75, 0.0]], dtype=torch.bfloat16)
    assert spectra.rounding_norm(few) == pytest.approx(math.sqrt((2**-14 + 2**-16) / 12))


@pytest.mark.parametrize("factored", [True, False])
def test_random_spectra_are_those_of_gaussian_matrices(factored):
    out, inner = 40, 12
    rank = 5 if factored else inner
    random, numpy_random = generator(0, "spectra"), np.random.default_rng(0)
    ours = torch.stack(
        [spectra.random_spectrum((out, inner), rank, factored, random) for _ in range(400)]
    )
    theirs = []
    for _ in range(400):
        W = numpy_random.normal(size=(out, rank)) @ numpy_random.normal(size=(rank, inner))
        W = W if factored else numpy_random.normal(size=(out, inner))
        S = np.linalg.svd(W, compute_uv=False)[:rank]
        theirs.append(S / np.linalg.norm(S))
    theirs = np.stack(theirs)
    error = theirs.std(axis=0) / math.sqrt(400)
    assert (np.abs(ours.mean(0).numpy() - theirs.mean(axis=0)) < 5 * error).all()
    assert np.allclose(ours.std(0), theirs.std(axis=0), rtol=0.25)
    assert torch.allclose(ours.norm(dim=1), torch.ones(400, dtype=torch.float64))


def test_random_coordinates_are_isotropic():
    draws = torch.stack(
        [spectra.random_coordinates(9, 2, 4, generator(i, "haar")) for i in range(500)]
    )
    assert draws.shape == (500, 6, 2)
    assert torch.allclose(draws.mT @ draws, torch.eye(2).double().expand(500, 2, 2), atol=1e-9)
    assert draws[:, :4].square().mean().item() == pytest.approx(1 / 9, rel=0.05)
    assert draws[:, :4].mean().item() == pytest.approx(0.0, abs=0.03)


def test_svd_of_factors_against_numpy():
    B, A = torch.randn(7, 3, generator=generator(0)), torch.randn(3, 5, generator=generator(1))
    for update in (
        LoraUpdate("m", B, A, -2.0),
        LoraUpdate("m", torch.cat([B, B], 1), torch.cat([A, A]), 0.5),  # rank 3 of 6
        LoraUpdate("m", torch.eye(5, 8), torch.randn(8, 4, generator=generator(2)), 1.0),
        DenseUpdate("m", B @ A),
    ):
        U, S, V = update.svd()
        if isinstance(update, LoraUpdate):
            assert len(S) == np.linalg.matrix_rank(update.dense().numpy())
        assert torch.allclose((U * S) @ V.T, update.dense().double(), atol=1e-5)
        wanted = np.linalg.svd(update.dense().numpy(), compute_uv=False)
        assert np.allclose(S, wanted[: len(S)], rtol=1e-4, atol=1e-5)
        for side in (U, V):
            assert torch.allclose(side.T @ side, torch.eye(len(S)).double(), atol=1e-9)
        assert update.norm() == pytest.approx(np.linalg.norm(wanted), rel=1e-5)
    assert isinstance(LoraUpdate("m", torch.zeros(4, 2), A[:2], 1.0).svd(), Svd)
    assert len(LoraUpdate("m", torch.zeros(4, 2), A[:2], 1.0).svd().S) == 0
