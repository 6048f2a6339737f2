"""Choices of sparsity: what each does to a factor, and whether a planted relation is found."""

import math

import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.sparsity import (
    Dense,
    HardConcrete,
    Proximal,
    RatioL1,
    RawL1,
    TopM,
    unit,
)
from lorascope.randomness import generator

D, N, READ, WRITTEN = 24, 120, 7, 95


def factor(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_raw_l1_can_be_lowered_without_changing_what_is_used():
    raw, choice = torch.randn(2, 50, generator=generator(0)), RawL1(weight=1.0)
    small = raw * 1e-3
    torch.testing.assert_close(choice.effective(small, 1.0), choice.effective(raw, 1.0))
    assert choice.penalty(small) == pytest.approx(1e-3 * choice.penalty(raw).item(), rel=1e-5)


def test_the_ratio_by_hand_and_at_any_size():
    choice = RatioL1(weight=2.0)
    # ‖(3, 4)‖₁ / (√2 · 5) and a single entry, 1/√2; their mean, twice.
    rows = factor([3.0, -4.0], [0.0, 9.0])
    assert choice.penalty(rows).item() == pytest.approx(7 / (5 * math.sqrt(2)) + 1 / math.sqrt(2))
    assert choice.penalty(1e-4 * rows).item() == pytest.approx(choice.penalty(rows).item())


def test_soft_thresholding_by_hand():
    raw = factor([0.6, 0.8, 0.0, 0.02], [0.0, 0.01, 0.0, 0.0])
    Proximal(threshold=2.0).settle(raw, rate=0.1)
    # 2 · 0.1 / √4 = 0.1 off each entry of the unit rows; the last row keeps its one direction.
    torch.testing.assert_close(raw[0], unit(factor([0.5, 0.7, 0.0, 0.0]))[0])
    torch.testing.assert_close(raw[1], factor([0.0, 1.0, 0.0, 0.0])[0])


def test_the_largest_stay_and_gradients_reach_the_others():
    raw = factor([3.0, 0.5, -4.0, 1.0]).requires_grad_()
    choice = TopM(m=2, annealed=0.5)
    assert [choice.left(64, p) for p in (0.0, 0.25, 0.5, 1.0)] == [64, 11, 2, 2]
    used = choice.effective(raw, progress=1.0)
    torch.testing.assert_close(used.detach(), factor([0.6, 0.0, -0.8, 0.0]))
    used[0, 1].backward()
    assert raw.grad[0, 1] != 0


def test_gates_start_open_as_often_as_asked():
    choice = HardConcrete(open_at_first=0.8)
    raw = torch.cat([torch.ones(1, 4000), torch.full((1, 4000), choice.first_odds())], 1)
    assert choice.penalty(raw).item() == pytest.approx(0.8, abs=1e-5)
    noise = torch.rand(1, 4000, generator=generator(1))
    used = choice.effective(raw, 0.5, noise)
    assert (used > 0).float().mean().item() == pytest.approx(0.8, abs=0.02)


def planted():
    """Rows, and what one relation makes of them: 2 z_READ is added of latent WRITTEN."""
    directions = isotropic(N, D, generator(2))
    dictionary = ReluDictionary(directions.T, torch.full((N,), -0.4), directions, torch.zeros(D))
    x = torch.randn(3000, D, generator=generator(3))
    change = 2 * dictionary.encode(x)[:, READ, None] * directions[WRITTEN]
    return dictionary, x, change


def trained(choice, steps=900, rate=0.03):
    dictionary, x, change = planted()
    adapter = LatentAdapter(dictionary, 1, choice, generator=generator(4))
    optimizer = torch.optim.Adam(adapter.parameters(), lr=rate)
    draws, noise = generator(5), generator(6)
    for step in range(steps):
        adapter.at(step / steps, noise)
        batch = torch.randint(len(x), (256,), generator=draws)
        error = (adapter(x[batch]) - x[batch] - change[batch]).square().sum(1).mean()
        optimizer.zero_grad()
        (error + adapter.penalty()).backward()
        optimizer.step()
        adapter.settle(rate)
    adapter.at(1.0)
    left = (adapter(x) - x - change).square().sum() / change.square().sum()
    return adapter, left.item()


@pytest.mark.parametrize(
    "choice",
    [
        TopM(m=1),
        Proximal(threshold=4.0),
        HardConcrete(weight=3.0),
    ],
    ids=lambda c: c.kind,
)
def test_exactly_the_planted_latents_are_found(choice):
    adapter, left = trained(choice)
    inputs, outputs = adapter.support()
    assert (inputs.tolist(), outputs.tolist()) == ([READ], [WRITTEN])
    assert left < 0.05
    (pair,) = adapter.pairs()
    assert (pair.read, pair.written) == (READ, WRITTEN)
    assert pair.weight == pytest.approx(2.0, rel=0.1)


def share_of_largest(adapter):
    """Weight of the largest entry of each unit-norm factor: 1 where nothing else is left."""
    return [factor.abs().max().item() for factor in adapter.factors()]


def test_the_ratio_concentrates_and_keeps_the_relation():
    sharp, left = trained(RatioL1(weight=2.0))
    assert left < 0.1
    assert min(share_of_largest(sharp)) > 0.97


def test_in_few_small_steps_raw_l1_leaves_the_factors_as_flat_as_no_penalty():
    # Entries begin at a size of 1; 150 steps of 0.001 cannot bring one to nothing.
    dense, plain = (trained(c, 150, 1e-3)[0] for c in (Dense(), RawL1(weight=0.05)))
    for ours, without in zip(share_of_largest(plain), share_of_largest(dense), strict=True):
        assert ours == pytest.approx(without, abs=0.01)
        assert ours < 0.5
    assert len(plain.support()[0]) == len(plain.support()[1]) == N
    found = trained(Proximal(threshold=40.0), 150, 1e-3)[0]
    assert len(found.support()[0]) < N / 2
