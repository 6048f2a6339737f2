"""The instrument finds what was planted, as much as was planted, and nothing where nothing was."""

import pytest
import torch

from lorascope.activations.scaling import mean_and_covariance
from lorascope.geometry.chance import covariance_root, directions_from_root, isotropic
from lorascope.geometry.cosine import max_cosine
from lorascope.measures.alignment import (
    NullSettings,
    angle_estimates,
    max_cosine_estimates,
)
from lorascope.measures.cka import cka_estimates
from lorascope.measures.firing import firing
from lorascope.randomness import generator
from lorascope.results import Key
from lorascope.training.architectures import ReLU
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

D, FEATURES, ROWS = 64, 24, 4096
REPEATS = 40
HEADLINES = ("max_cosine.mean", "angle.mean", "cka_debiased.base_delta")


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on several threads, the more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planted_rows(directions, random):
    """Rows in each of which about two of the directions are on, with a little noise."""
    shape = (ROWS, len(directions))
    on = torch.rand(shape, generator=random) < 2 / len(directions)
    strength = 1 + torch.rand(shape, generator=random)
    noise = 0.02 * torch.randn(ROWS, D, generator=random)
    return (on * strength) @ directions + noise


@pytest.mark.parametrize("from_base", [6, 12, 18])
def test_share_of_latents_beyond_chance_is_the_share_planted(from_base):
    random = generator(from_base, "planted")
    base = isotropic(128, D, random)
    new = isotropic(FEATURES - from_base, D, random)
    rows = planted_rows(torch.cat([base[:from_base], new]), random)
    learned = fit(
        ReLU(n_latents=32, l1=0.1),
        rows,
        fitting=Fitting(epochs=12, batch=256, rate=1e-2, products="float32"),
    )
    alive = firing(learned, rows).alive
    cosines, _ = max_cosine(learned.directions[alive], base)
    _, covariance = mean_and_covariance([rows])
    null, _ = max_cosine(directions_from_root(20000, covariance_root(covariance), random), base)
    beyond = (cosines > null.quantile(0.99)).float().mean().item()
    assert beyond == pytest.approx(from_base / FEATURES, abs=0.12)
    estimates = max_cosine_estimates(
        learned.directions,
        base,
        nulls=NullSettings(covariance, repeats=5),
        place=Key(),
        alive=alive,
    )
    found = {e.measure: e for e in estimates}
    assert found["max_cosine.above_0.7"].value == pytest.approx(from_base / FEATURES, abs=0.12)
    assert found["max_cosine.above_0.7"].verdict == "above"


def verdicts(trial, relation):
    """An audit's three headline comparisons of streams and deltas with unrelated covariances.

    The dictionaries' directions are rows of further such draws. `relation` is how much of the base
    is mixed into delta rows and directions; 0 leaves nothing to find.
    """
    random = generator(trial, "nothing")
    roots = torch.linspace(1.5, 0.5, 24) * torch.randn(2, 24, 24, generator=random)
    base, delta = torch.randn(2, 480, 24, generator=random) @ roots
    base_directions, delta_directions = torch.randn(2, 64, 24, generator=random) @ roots
    delta, delta_directions = delta + relation * base, delta_directions + relation * base_directions
    (_, of_base), (_, of_delta) = (mean_and_covariance([rows]) for rows in (base, delta))
    nulls = NullSettings(of_delta, of_base, seed=trial)
    pair = (delta_directions, base_directions)
    cosine = max_cosine_estimates(*pair, nulls=nulls, place=Key())
    angle = angle_estimates(*pair, k=8, nulls=nulls, place=Key())
    documents = torch.arange(480) // 20
    cka = cka_estimates(base, delta, documents, "base_delta", place=Key(), seed=trial)
    found = {e.measure: e.verdict for e in (*cosine, *angle, *cka)}
    return {measure: found[measure] for measure in HEADLINES}


def test_where_nothing_is_planted_nothing_is_found():
    trials = [verdicts(trial, relation=0.0) for trial in range(REPEATS)]
    for measure in HEADLINES:
        at_chance = sum(found[measure] in ("equal", "not settled") for found in trials)
        assert at_chance >= 0.9 * REPEATS, measure


def test_the_same_comparisons_find_a_relation():
    trials = [verdicts(trial, relation=1.0) for trial in range(5)]
    for found in trials:
        assert found["max_cosine.mean"] == "above"
        assert found["cka_debiased.base_delta"] == "above"
