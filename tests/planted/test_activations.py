"""Made rows are what their recipe says."""

import pytest
import torch

from lorascope.errors import InputError
from lorascope.planted.activations import Planted, PlantedRecipe

MANY = (800, 64)


def codes(rows, directions):
    """What is on, read off with the pseudo-inverse."""
    return rows @ torch.linalg.pinv(directions) > 0.5


def test_the_first_features_of_the_delta_are_the_base_s():
    planted = Planted.of(PlantedRecipe(0.25, seed=3))
    assert torch.equal(planted.delta[:8], planted.base[:8])
    cosines = planted.delta[8:] @ planted.base.T
    assert cosines.max() < 0.5
    other = Planted.of(PlantedRecipe(1.0, seed=3))
    assert torch.equal(other.base, planted.base)
    assert torch.equal(other.delta, planted.base)


@pytest.mark.parametrize("together", [0.0, 0.3, 1.0])
def test_features_fire_at_their_rate_and_together_as_planted(together):
    planted = Planted.of(PlantedRecipe(0.5, together, rate=0.1))
    rows = planted.rows(*MANY, "a")
    base, delta = codes(rows.base, planted.base), codes(rows.delta, planted.delta)
    assert base.float().mean().item() == pytest.approx(0.1, abs=0.003)
    assert delta.float().mean(0) == pytest.approx(torch.full((32,), 0.1), abs=0.01)
    both = (base & delta).sum(0) / delta.sum(0)
    assert both[:16] == pytest.approx(torch.full((16,), together), abs=0.05)
    assert both[16:] == pytest.approx(torch.full((16,), 0.1), abs=0.05)


def test_covariances_and_cka_are_those_of_many_rows():
    planted = Planted.of(PlantedRecipe(0.75, 0.6, d_model=48, features=16, rate=0.2))
    rows = planted.rows(2000, 64, "a")
    sizes = {}
    for of, x, y in (
        ("base", rows.base, rows.base),
        ("delta", rows.delta, rows.delta),
        ("both", rows.base, rows.delta),
    ):
        x, y = (each.double() - each.double().mean(0) for each in (x, y))
        found, expected = x.T @ y / len(x), planted.covariance(of)
        assert (found - expected).norm() < 0.03 * expected.norm()
        sizes[of] = found.square().sum()
    found = sizes["both"] / (sizes["base"] * sizes["delta"]).sqrt()
    assert planted.cka() == pytest.approx(found.item(), rel=0.02)
    assert 0.1 < planted.cka() < 0.9


def test_the_true_dictionary_reads_what_is_on():
    planted = Planted.of(PlantedRecipe(0.5))
    rows = planted.rows(100, 64, "a")
    dictionary = planted.dictionary()
    assert torch.equal(dictionary.encode(rows.base) > 0, codes(rows.base, planted.base))
    left = (dictionary(rows.base) - rows.base).norm() / rows.base.norm()
    # Strengths between 1 and 2 come out as between 0.75 and 2.25, and noise stays.
    assert 0.1 < left < 0.25


def test_draws_differ_by_name_and_repeat_by_seed():
    planted = Planted.of(PlantedRecipe(0.5))
    first, again, other = (planted.rows(4, 8, name).delta for name in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_impossible_recipes_are_refused():
    with pytest.raises(InputError, match="no whole number"):
        PlantedRecipe(0.3)
    with pytest.raises(InputError, match="shares between 0 and 1"):
        PlantedRecipe(1.5)
