"""Latents beside others of their rate and strength, through the same intervention."""

import pytest
import torch

from lorascope.activations.tokens import Window
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.measures.matched_latents import (
    Matched,
    beside_matched,
    matched_latents,
    most_alike,
    some_windows,
)
from lorascope.measures.single_latents import latent_effects
from lorascope.measures.surveys import survey
from lorascope.models.adapted import load
from lorascope.results import Estimate, Key
from lorascope.results.null_names import MATCHED

D = 32
IDS = torch.randint(3, 60, (4, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def surveyed(tiny_checkpoint, save_adapter, tmp_path_factory):
    """A tiny model with an adapter, and a dictionary whose latents fire in some windows only."""
    folder = tmp_path_factory.mktemp("adapter")
    path = save_adapter(folder / "whole", target_modules=["q_proj", "up_proj"])
    model = load(str(tiny_checkpoint()), {"whole": str(path)}, device="cpu")
    windows = [Window(row.tolist(), [True] * 10, index) for index, row in enumerate(IDS)]
    found = survey(model, "whole", windows, ["layers.1"])
    axes = torch.linalg.qr(torch.randn(D, 6, generator=torch.Generator().manual_seed(2))).Q.T
    deltas = next(iter(found.pool.values()))[0]
    bias = -(deltas @ axes.T).float().quantile(0.7, dim=0)
    return model, found, ReluDictionary(axes.T.float(), bias, axes.float(), torch.zeros(D))


def test_most_alike_by_hand():
    # Rates 4, 2, 2, 1 of 4; mean strengths 1, 1, 8, 1; the last never fires.
    strengths = torch.tensor(
        [
            [1.0, 1.0, 8.0, 1.0, 0.0],
            [1.0, 1.0, 8.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    found = most_alike(strengths, torch.tensor([0, 2]), 3)
    # From 0: latent 1 is log 2 away, latent 3 log 4. From 2: 1 is log 8 away, 3 farther.
    assert found.tolist() == [[1, 3, -1], [1, 3, -1]]
    assert most_alike(strengths, torch.tensor([3]), 2).tolist() == [[1, 0]]


def made(own, alternatives, energy=(1.0, 1.0)):
    return matched(
        torch.tensor(own, dtype=torch.float64),
        torch.tensor(energy, dtype=torch.float64),
        torch.tensor(alternatives, dtype=torch.float64),
    )


def matched(own, energy, alternatives):
    """Every alternative another latent."""
    n, m = alternatives.shape
    others = torch.arange(n, n + n * m).reshape(n, m)
    return Matched(own, energy, alternatives, torch.arange(n), others)


def test_p_values_expected_kl_and_adjustment_by_hand():
    nan = float("nan")
    found = made([0.6, 0.1], [[0.1, 0.2, 0.3], [0.1, 0.3, nan]], energy=[2.0, 1.0])
    assert found.counts.tolist() == [3, 2]
    assert found.expected.tolist() == pytest.approx([0.4, 0.2])
    # 0.6 / 2 = 0.3: one alternative matters as much; 0.1: both do.
    assert found.p.tolist() == pytest.approx([2 / 4, 3 / 3])
    assert found.q.tolist() == pytest.approx([1.0, 1.0])


def test_the_verdict_is_of_each_latent_beside_its_own_set():
    # Every latent changes 0.1 more than its like; their sizes differ far more than that.
    own = torch.linspace(0.2, 5.0, 12, dtype=torch.float64)
    nearly = 0.1 + 0.001 * torch.arange(12) % 0.003
    alternatives = (own - nearly)[:, None].expand(12, 40)
    found = matched(own, torch.ones(12, dtype=torch.float64), alternatives)
    plain = Estimate("latent_ablation.kl", float(own.mean()), (1.5, 3.7), 12, "nats/token")
    beside = beside_matched(plain, found)
    assert beside.headline.name == MATCHED
    assert beside.value - beside.headline.level == pytest.approx(float(nearly.mean()))
    assert beside.verdict == "above"
    # As many alternatives above as below: no latent is apart from its set.
    around = own[:, None] + torch.linspace(-0.5, 0.5, 40, dtype=torch.float64)
    equal = beside_matched(plain, matched(own, torch.ones(12, dtype=torch.float64), around))
    assert equal.verdict not in ("above", "below")
    assert equal.headline.low < equal.value < equal.headline.high
    # By hand: one of 40 rectangular alternatives a latent; the mean of 12 has a twelfth of the
    # variance of one.
    spread = (around[0].var(correction=0) / 12).sqrt()
    assert equal.headline.high - equal.headline.low == pytest.approx(3.92 * float(spread), rel=0.1)


def test_rank_p_values_are_uniform_where_named_and_others_are_alike():
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        drawn = torch.rand(1, 41, generator=random, dtype=torch.float64).square()
        found.append(float(matched(drawn[:, 0], torch.ones(1), drawn[:, 1:]).p))
    shares = [sum(p <= level for p in found) / len(found) for level in (0.1, 0.5)]
    assert shares[0] == pytest.approx(0.1, abs=0.05)
    assert shares[1] == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("mode", ["ablation", "addition"])
def test_a_latents_kl_is_that_of_its_own_intervention(surveyed, mode):
    model, found, dictionary = surveyed
    named = torch.tensor([1, 0])
    beside = matched_latents(
        model, found, "layers.1", dictionary, named, alternatives=3, windows=9
    )[mode]
    alone = latent_effects(model, found, "layers.1", dictionary, named).changes[mode]
    assert float(alone.kl[:, 0].max()) > 1e-6
    assert beside.kl.tolist() == pytest.approx(alone.kl[:, 0].tolist(), rel=1e-3)
    other = latent_effects(model, found, "layers.1", dictionary, torch.tensor([2]))
    per_energy = float(other.changes[mode].kl[0, 0])
    assert any(
        value * e == pytest.approx(per_energy, rel=1e-3)
        for row in beside.alternatives
        for value in row.tolist()
        for e in [energy_of(model, found, dictionary, 2)]
    )


def energy_of(model, found, dictionary, latent):
    one = matched_latents(
        model, found, "layers.1", dictionary, torch.tensor([latent]), alternatives=1
    )
    return float(one["ablation"].energy[0])


def test_windows_are_drawn_among_those_in_which_a_latent_fires():
    energies = torch.zeros(9, 3)
    energies[:, 0] = 1.0
    energies[2, 1] = energies[7, 1] = 0.5
    chosen = some_windows(energies, 3, torch.Generator().manual_seed(0))
    assert chosen.sum(0).tolist() == [3, 2, 0]
    assert chosen[:, 1].nonzero().flatten().tolist() == [2, 7]
    again = some_windows(energies, 3, torch.Generator().manual_seed(1))
    assert not torch.equal(chosen[:, 0], again[:, 0])


def test_the_key_stays():
    plain = Estimate("latent_ablation.kl", 1.0, (0.5, 1.5), 2, "nats/token", key=Key("a"))
    assert beside_matched(plain, made([1.0, 2.0], [[0.1], [0.2]])).key == Key("a")
