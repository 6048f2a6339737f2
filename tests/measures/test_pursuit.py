"""What directions can express: by hand, planted, and where nothing is planted."""

import math

import numpy as np
import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.measures import pursuit
from lorascope.measures.definitions.pursuit import DEFINITIONS
from lorascope.measures.pursuit import Deltas, pca_estimates, pursuit_estimates
from lorascope.measures.rows import HeldOut
from lorascope.randomness import generator
from lorascope.results import Key

PLACE = Key(adapter="r4", rank=4, site="layers.1", seed=2)
ROWS = torch.tensor([[4.0, 1.0, 0.0], [0.5, 0.0, 2.0], [0.0, -3.0, 4.0]])
NORMS = (17**0.5, 4.25**0.5, 5.0)
# Σ‖x‖² − 3 ‖(1.5, −2/3, 2)‖²
SPREAD = 46.25 - 3 * (2.25 + 4 / 9 + 4)


def held_out(delta, per_document=1):
    return HeldOut(torch.zeros_like(delta), delta, torch.arange(len(delta)) // per_document)


def by_key(estimates):
    found = {(e.measure, e.key.dictionary, e.key.k): e for e in estimates}
    assert len(found) == len(estimates)
    return found


def topk(directions, k, bias=None):
    """A TopK dictionary that reads the directions it writes."""
    d = directions.shape[1]
    bias = torch.zeros(d) if bias is None else bias
    return TopKDictionary(directions.T, torch.zeros(len(directions)), directions, bias, k)


def relative(*residuals):
    return sum(r / norm for r, norm in zip(residuals, NORMS, strict=True)) / 3


@pytest.fixture
def by_hand(threshold_dictionary):
    """Two always active latents (1, 1, 0)/√2 and (0, 0, 1); three read off above 1, one active."""
    directions = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    directions /= directions.norm(dim=1, keepdim=True)
    base = ReluDictionary(directions.T, torch.full((2,), 10.0), directions, torch.zeros(3))
    mean, covariance = torch.tensor([1.0, 0.0, 0.0]), torch.diag(torch.tensor([1.0, 5.0, 2.0]))
    estimates = pursuit_estimates(
        base, threshold_dictionary(3), held_out(ROWS), mean, covariance, PLACE
    )
    return by_key(estimates)


def test_errors_by_hand(by_hand):
    expected = {
        ("base", 1): (4.5**0.5, 0.5, 3.0),
        ("base", 2): (4.5**0.5, 0.125**0.5, 3.0),
        ("delta", 1): (1.0, 0.5, 3.0),
        ("delta", 2): (0.0, 0.0, 3.0),
    }
    for place, residuals in expected.items():
        error, fvu = (by_hand["pursuit.relative_error", *place], by_hand["pursuit.fvu", *place])
        assert error.value == pytest.approx(relative(*residuals))
        assert fvu.value == pytest.approx(sum(r * r for r in residuals) / SPREAD)
        assert [c.name for c in error.nulls] == [
            "covariance-matched",
            "isotropic",
            "delta dictionary's bias alone",
        ]
        assert error.nulls[2].level == error.nulls[2].high == pytest.approx(1.0)
        assert fvu.nulls[2].level == pytest.approx(46.25 / SPREAD)
        for estimate in (error, fvu):
            assert all(math.isnan(bound) for bound in estimate.interval)
            assert estimate.n == 3
            assert (estimate.key.adapter, estimate.key.seed) == ("r4", 2)


def test_components_by_hand(by_hand):
    # Less the mean (3, 1, 0), (−0.5, 0, 2), (−1, −3, 4); first the second axis, then the third.
    for k, residuals in ((1, (3.0, 4.25**0.5, 17**0.5)), (2, (3.0, 0.5, 1.0))):
        error, fvu = (by_hand[m, "PCA", k] for m in ("pca.relative_error", "pca.fvu"))
        assert error.value == pytest.approx(relative(*residuals))
        assert fvu.value == pytest.approx(sum(r * r for r in residuals) / SPREAD)
        assert [c.name for c in error.nulls] == ["random subspace", "mean of the training deltas"]
        away = relative(10**0.5, 4.25**0.5, 26**0.5)
        assert error.nulls[1].level == pytest.approx(away)


def test_gap_by_hand(by_hand):
    # The threshold dictionary writes (3, 0, 0), (0, 0, 1), (0, 0, 3).
    own = relative(2**0.5, 1.25**0.5, 10**0.5)
    found = by_hand["pursuit.gap", "delta", 1]
    assert found.value == pytest.approx(own - relative(1.0, 0.5, 3.0))
    # The base dictionary writes its two projections, each with 10 too much.
    left = [(4.5 + 200) ** 0.5, (0.125 + 200) ** 0.5, (4.5 + 200) ** 0.5]
    found = by_hand["pursuit.gap", "base", 2]
    assert found.value == pytest.approx(relative(*left) - relative(4.5**0.5, 0.125**0.5, 3.0))
    assert {key[1:] for key in by_hand if key[0] == "pursuit.gap"} == {
        ("delta", 1),
        ("base", 2),
    }


def test_every_number_has_a_definition_and_its_unit(by_hand):
    assert {e.measure for e in by_hand.values()} == set(DEFINITIONS)
    for estimate in by_hand.values():
        assert estimate.unit == DEFINITIONS[estimate.measure].unit
        assert estimate.nulls[0].name in DEFINITIONS[estimate.measure].chance
        for chance in estimate.nulls:
            assert chance.low <= chance.level <= chance.high


def planted(sees, seed=0, d=48):
    """Rows that are sums of 3 of 96 base directions; the base encoder sees them or is scrambled."""
    random = generator(seed, "planted")
    directions = isotropic(96, d, random)
    support = torch.stack([torch.randperm(96, generator=random)[:3] for _ in range(300)])
    rows = ((1 + torch.rand(300, 3, generator=random))[:, :, None] * directions[support]).sum(1)
    order = torch.arange(96) if sees else torch.randperm(96, generator=random)
    base = TopKDictionary(directions[order].T, torch.zeros(96), directions, torch.zeros(d), 6)
    learned = topk(isotropic(96, d, random), 6)
    covariance = rows.T.cov()
    return by_key(
        pursuit_estimates(base, learned, held_out(rows, 5), rows.mean(0), covariance, PLACE)
    )


def test_an_encoder_at_fault_is_told_from_directions_at_fault():
    seeing, scrambled = planted(True), planted(False)
    for found in (seeing, scrambled):
        error = found["pursuit.relative_error", "base", 6]
        assert error.value < 0.02
        assert {error.against(chance) for chance in error.nulls} == {"below"}
        of_others = found["pursuit.relative_error", "delta", 6]
        # The rows' covariance is uneven and tells random directions something these do not know.
        assert of_others.against(of_others.nulls[1]) in ("equal", "not settled")
        assert of_others.value > 0.3
        # Six directions of the right 96 beat six components, which must serve every row.
        assert error.value < 0.1 * found["pca.relative_error", "PCA", 6].value
    gaps = [found["pursuit.gap", "base", 6] for found in (seeing, scrambled)]
    assert gaps[1].value > 1.0 > gaps[0].value + 0.3
    assert gaps[1].verdict == "above"


def test_directions_that_cannot_express_the_rows_leave_all_of_them():
    random = generator(0, "apart")
    low, high = torch.eye(32)[:16], torch.eye(32)[16:]
    rows = torch.randn(200, 16, generator=random) @ low
    base = topk(isotropic(64, 16, random) @ high, 5)
    learned = topk(isotropic(64, 16, random) @ low, 5)
    found = by_key(
        pursuit_estimates(base, learned, held_out(rows), rows.mean(0), rows.T.cov(), PLACE)
    )
    missing = found["pursuit.relative_error", "base", 5]
    assert missing.value == pytest.approx(1.0)
    assert missing.against(missing.nulls[1]) == "above"
    # Of the 32 dimensions random directions would have to serve, these know the right 16.
    within = found["pursuit.relative_error", "delta", 5]
    assert within.against(within.nulls[1]) == "below"
    assert within.verdict in ("equal", "not settled")


def test_where_nothing_is_planted_nothing_is_found():
    apart, counted = 0, 0
    for repeat in range(12):
        random = generator(repeat, "nothing")
        rows = torch.randn(160, 16, generator=random)
        base, learned = topk(isotropic(40, 16, random), 3), topk(isotropic(40, 16, random), 5)
        found = pursuit_estimates(
            base, learned, held_out(rows, 4), torch.zeros(16), torch.eye(16), PLACE, seed=repeat
        )
        verdicts = [e.verdict for e in found]
        apart += sum(v in ("above", "below") for v in verdicts)
        counted += len(verdicts)
    assert counted == 12 * (2 * 2 * 2 + 2 + 4)
    assert apart <= 0.05 * counted


def test_isotropic_level_is_that_of_other_random_directions():
    random = generator(0, "level")
    rows = torch.randn(400, 6, generator=random)
    dictionary = topk(isotropic(20, 6, random), 1)
    found = by_key(
        pursuit_estimates(
            dictionary, dictionary, held_out(rows), torch.zeros(6), torch.eye(6), PLACE, repeats=8
        )
    )
    # One direction: √(1 − c²) is left, c the largest cosine of 20.
    draws = np.random.default_rng(0).normal(size=(200, 20, 6))
    draws /= np.linalg.norm(draws, axis=2, keepdims=True)
    unit = rows.numpy() / rows.norm(dim=1, keepdim=True).numpy()
    best = np.einsum("rnd,xd->rxn", draws, unit).max(2)
    expected = np.sqrt(1 - best**2).mean()
    error = found["pursuit.relative_error", "base", 1]
    for chance in error.nulls[:2]:
        assert chance.level == pytest.approx(expected, abs=0.015)
        assert chance.low < expected < chance.high < 1.2 * expected
    random_line = found["pca.relative_error", "PCA", 1].nulls[0]
    cosines = np.random.default_rng(1).normal(size=(20000, 6))
    cosines = cosines[:, 0] / np.linalg.norm(cosines, axis=1)
    assert random_line.level == pytest.approx(np.sqrt(1 - cosines**2).mean(), abs=0.03)


def test_the_delta_bias_is_offered_to_all():
    random = generator(0, "bias")
    bias = 5 * torch.randn(24, generator=random)
    rows = bias + 0.5 * torch.randn(100, 24, generator=random)
    base, learned = (topk(isotropic(30, 24, random), 2, bias=b) for b in (torch.zeros(24), bias))
    found = by_key(
        pursuit_estimates(base, learned, held_out(rows), rows.mean(0), torch.eye(24), PLACE)
    )
    for name in ("base", "delta"):
        error = found["pursuit.relative_error", name, 2]
        assert error.value < error.nulls[2].level < 0.2
        assert all(chance.level < error.nulls[2].level for chance in error.nulls[:2])


def test_k_stays_within_bounds(threshold_dictionary, monkeypatch):
    silent = ReluDictionary(torch.eye(3), torch.full((3,), -99.0), torch.eye(3), torch.zeros(3))
    loud = ReluDictionary(torch.eye(3), torch.full((3,), 99.0), torch.eye(3), torch.zeros(3))
    arguments = (held_out(ROWS), ROWS.mean(0), torch.eye(3), PLACE)
    found = pursuit_estimates(silent, loud, *arguments)
    assert {e.key.k for e in found} == {1, 3}
    monkeypatch.setattr(pursuit, "MOST_ACTIVE", 2)
    found = pursuit_estimates(silent, loud, *arguments)
    assert {e.key.k for e in found} == {1, 2}


def test_rows_are_capped_and_every_document_stays(monkeypatch):
    rows = torch.randn(300, 4, generator=generator(0, "rows"))
    some = Deltas.sampled(held_out(rows, 10), 90, seed=1)
    assert len(some.rows) == len(some.documents) == 90
    assert some.documents.unique().tolist() == list(range(30))
    assert torch.equal(Deltas.sampled(held_out(rows, 10), 90, seed=1).rows, some.rows)
    monkeypatch.setattr(pursuit, "MOST_ROWS", 120)
    monkeypatch.setattr(pursuit, "FEWEST_ROWS", 60)
    dictionary = topk(torch.eye(4), 2)
    arguments = (dictionary, dictionary, held_out(rows, 10), rows.mean(0), torch.eye(4), PLACE)
    assert {e.n for e in pursuit_estimates(*arguments)} == {120}
    monkeypatch.setattr(pursuit, "_WORK", 95 * 4 * 4 * 2)
    assert {e.n for e in pursuit_estimates(*arguments)} == {90}
    monkeypatch.setattr(pursuit, "_WORK", 1)
    assert {e.n for e in pursuit_estimates(*arguments)} == {60}


def test_numbers_depend_on_the_seed_alone(threshold_dictionary):
    dictionary = threshold_dictionary(3)

    def levels(seed):
        found = pca_and_pursuit(dictionary, seed)
        return [c.level for e in found for c in e.nulls]

    def pca_and_pursuit(one, seed):
        return pursuit_estimates(
            one, one, held_out(ROWS), ROWS.mean(0), torch.eye(3), PLACE, seed=seed
        )

    torch.manual_seed(1)
    first = levels(0)
    torch.manual_seed(2)
    assert levels(0) == first
    assert levels(1) != first


def test_components_alone_for_any_sizes():
    rows = torch.randn(50, 5, generator=generator(0, "components"))
    deltas = Deltas(rows, torch.arange(50))
    found = pca_estimates(deltas, rows.mean(0), rows.T.cov(), [1, 5], PLACE)
    values = {(e.measure, e.key.k): e.value for e in found}
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T.double().numpy()))
    assert values["pca.fvu", 1] == pytest.approx(1 - eigenvalues[-1] / eigenvalues.sum())
    assert values["pca.fvu", 5] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("base_width", "rows", "repeats", "message"),
    [(4, 3, 5, r"\(4, 3, 3, 3, 3\) wide"), (3, 0, 5, "no held-out rows"), (3, 3, 1, "no spread")],
)
def test_what_does_not_fit_is_refused(base_width, rows, repeats, message, threshold_dictionary):
    with pytest.raises(InputError, match=message):
        pursuit_estimates(
            threshold_dictionary(base_width),
            threshold_dictionary(3),
            held_out(ROWS[:rows]),
            torch.zeros(3),
            torch.eye(3),
            PLACE,
            repeats=repeats,
        )
