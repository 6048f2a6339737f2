"""Whether latents matter: named latents that are like all others, and some that are not."""

import math

import pytest
import torch

from lorascope.latent_adapters.ablation import (
    AblatedSide,
    Ablation,
    ablation_estimates,
    mattering,
    rank_p,
)
from lorascope.latent_adapters.frontier import READ, left_estimate
from lorascope.latent_adapters.matching import matched, one_each
from lorascope.measures.paired_shares import ratio
from lorascope.randomness import generator
from lorascope.results import Key

from .conftest import behaviour


def test_rank_p_by_hand():
    named = torch.tensor([3.0, 0.5, 9.0])
    others = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 1], [1, 2, 3, 4]])
    # ties count against the named one
    assert rank_p(named, others).tolist() == pytest.approx([3 / 5, 2 / 5, 1 / 5])


def sides(n, k, pool, seed, shift=0.0):
    """Named latents and alternatives of one skewed law; alternatives come from a shared pool."""
    random = generator(seed, "exchangeable", n)
    values = torch.empty(n + pool).exponential_(generator=random)
    named, rest = values[:n] + shift, values[n:]
    runs = torch.stack([torch.randperm(pool, generator=random)[:k] for _ in range(n)])
    return named, rest[runs], runs


@pytest.mark.parametrize("n", [8, 16, 32])
@pytest.mark.parametrize("pool", [60, 480])
def test_exchangeable_latents_are_not_found(n, pool):
    """The stated share is the true one, and few verdicts leave it."""
    shares, found, discovered = [], 0, 0
    for seed in range(100):
        named, others, runs = sides(n, 40, pool, seed)
        one = mattering(named, others, runs, Key("x"), seed)
        shares.append(one.value)
        found += one.verdict in ("above", "below")
        side = AblatedSide(torch.arange(n), runs, runs, named, others)
        discovered += bool(side.matters.any())
    assert one.chance == pytest.approx(2 / 41)
    error = torch.tensor(shares).std().item() / math.sqrt(len(shares))
    assert sum(shares) / len(shares) == pytest.approx(2 / 41, abs=3 * error)
    # At most 5 % in truth; of 100, more than 11 would come once in a hundred times.
    assert found <= 11
    # A false discovery rate of 10 % where nothing is true: any discovery is one.
    assert discovered <= 18


def test_latents_that_matter_are_found():
    named, others, runs = sides(16, 40, 480, 0, shift=6.0)
    one = mattering(named, others, runs, Key("x"))
    assert (one.verdict, one.value) == ("above", 1.0)
    side = AblatedSide(torch.arange(16), runs, runs, named, others)
    assert side.matters.all()
    found = ablation_estimates(Ablation(1.0, 2.0, {READ: side}), Key("x"))
    rise = next(e for e in found if e.measure == "latent.ablation")
    assert rise.value - rise.chance == pytest.approx(float((named - others.mean(1)).mean()))
    assert rise.verdict == "above"


def test_too_few_alternatives_can_say_nothing_of_a_single_latent():
    named, others, runs = sides(16, 10, 480, 0, shift=6.0)
    side = AblatedSide(torch.arange(16), runs, runs, named, others)
    found = ablation_estimates(Ablation(1.0, 2.0, {READ: side}), Key("x"))
    assert {e.measure for e in found} == {"latent.ablation"}


def test_alternatives_fire_as_often_and_write_as_much(reading):
    seen = reading.see(behaviour()[0])
    named = torch.tensor([3, 17, 40])
    found = matched(reading, seen, named, 12)
    assert found.shape == (3, 12)
    assert not set(named.tolist()) & set(found.flatten().tolist())
    fired, total = torch.zeros(80), torch.zeros(80)
    for one in seen:
        fired += torch.bincount(one.codes.latent.long(), minlength=80)
        total.index_add_(0, one.codes.latent.long(), one.codes.value)
    rate = (fired + 0.5) / (sum(len(one.codes.counts) for one in seen) + 1)
    norm = total / fired.clamp(min=1) * reading.dictionary.directions.norm(dim=1)
    norm = norm.clamp(min=norm[norm > 0].min())
    for latent, row in zip(named.tolist(), found.tolist(), strict=True):
        apart = (rate / rate[latent]).log().abs() + (norm / norm[latent]).log().abs()
        rest = [i for i in range(80) if i not in (3, 17, 40)]
        nearest = sorted(rest, key=lambda i: float(apart[i]))[:12]
        assert max(apart[row]).item() == pytest.approx(max(apart[nearest]).item(), rel=1e-4)
    # All there are where fewer than asked.
    assert matched(reading, seen, named, 200).shape == (3, 77)
    drawn = one_each(found, 0, 1)
    assert len(set(drawn.tolist())) == 3
    assert all(latent in row for latent, row in zip(drawn.tolist(), found.tolist(), strict=True))


def test_what_is_left_is_the_behaviour_s_own_share():
    whole = [True] * 18 + [False] * 2
    without = [True] * 3 + [False] * 17
    others = [[True] * (15 + i) + [False] * (5 - i) for i in range(4)]
    found = left_estimate(without, whole, others, Key("x", dictionary=READ))
    assert (found.value, found.n) == (pytest.approx(3 / 18), 20)
    assert found.interval == ratio(without, whole)
    assert found.chance == pytest.approx(16.5 / 18)
    assert found.verdict == "below"
    # Shown on nine of twenty: of fewer than ten prompts nothing is said to be left.
    assert left_estimate([False] * 20, [True] * 9 + [False] * 11, others, Key("x")) is None
    ten = left_estimate([False] * 20, [True] * 10 + [False] * 10, others, Key("x"))
    assert ten.value == 0.0
    assert left_estimate([False] * 20, [False] * 20, others, Key("x")) is None
