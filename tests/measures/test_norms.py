"""Delta norms and effective rank by hand and against numpy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from lorascope.measures.definitions import definition
from lorascope.measures.norms import effective_rank, norm_estimates, rank_estimate
from lorascope.measures.rows import HeldOut
from lorascope.randomness import generator
from lorascope.results import Key

PLACE = Key(adapter="r4", site="layers.1")


def held_out(delta, documents, base=None):
    return HeldOut(torch.zeros_like(delta) if base is None else base, delta, documents)


def test_norms_by_hand():
    delta = torch.tensor([[3.0, 4.0], [0.0, 2.0], [6.0, 8.0]])
    base = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    rows = held_out(delta, torch.tensor([0, 0, 1]), base)
    norm, relative = norm_estimates(rows, 0.5, PLACE)
    assert norm.value == pytest.approx((5 + 2 + 10) / 3)
    assert relative.value == pytest.approx(17 / 6)  # of sums, not the mean of 5, 1 and 10/3
    assert (norm.chance, relative.chance) == (0.5, pytest.approx(0.25))
    assert norm.nulls[0].name == relative.nulls[0].name == "numeric noise floor"
    many = held_out(
        delta.repeat(5, 1),
        torch.arange(5).repeat_interleave(3) * 2 + torch.tensor([0, 0, 1]).repeat(5),
        base.repeat(5, 1),
    )
    for one, ends in zip(
        norm_estimates(many, 0.5, PLACE), ((3.5, 10.0), (7 / 3, 10 / 3)), strict=True
    ):
        # Ten documents weigh alike: of mean norm 3.5 and 10, and of 7 over 3 and 10 over 3.
        assert one.value == pytest.approx(6.75 if ends[1] == 10 else 6.75 / 2.25)
        assert 0.6 * one.value < one.interval[0] < one.value < one.interval[1] < 1.5 * one.value
    for estimate in (norm, relative):
        assert estimate.unit == definition(estimate.measure).unit
        assert estimate.n == 3
        # Two documents leave no interval, and so no verdict; ten do.
        assert estimate.verdict == "no verdict"
    assert {one.verdict for one in norm_estimates(many, 0.5, PLACE)} == {"above"}


def test_effective_rank_by_hand_and_against_scipy():
    # shares 1/4, 1/4, 1/2: entropy ½ ln 4 + ½ ln 2
    assert effective_rank(torch.diag(torch.tensor([1.0, 1.0, 2.0]))) == pytest.approx(math.sqrt(8))
    assert effective_rank(torch.eye(7)) == pytest.approx(7.0)
    assert effective_rank(torch.diag(torch.tensor([0.0, 3.0, 0.0]))) == pytest.approx(1.0)
    factor = torch.randn(6, 6, generator=generator(0, "factor"))
    covariance = factor @ factor.T
    entropy = scipy.stats.entropy(np.linalg.eigvalsh(covariance.double().numpy()))
    assert effective_rank(covariance) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_rank_of_rows_by_hand():
    # ±(1, 0) and ±(0, 3) about a common offset: variances 1 : 9.
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, -3.0]]) + 50.0
    found = rank_estimate(held_out(rows, torch.arange(4)), PLACE)
    assert found.value == pytest.approx(math.exp(scipy.stats.entropy([0.1, 0.9])), rel=1e-6)
    assert found.unit == definition("delta_rank").unit
    assert all(math.isnan(bound) for bound in found.interval)


def test_rank_interval_leaves_out_documents_group_by_group():
    random = generator(0, "rows")
    rows = torch.randn(60, 4, generator=random) * torch.tensor([3.0, 2.0, 1.0, 0.5])
    documents = torch.arange(60) // 3  # 20 documents in 10 groups: g and g + 10
    found = rank_estimate(held_out(rows, documents), PLACE)

    def rank(kept):
        return math.exp(scipy.stats.entropy(np.linalg.eigvalsh(np.cov(kept.T))))

    x = rows.double().numpy()
    group = (documents % 10).numpy()
    without = np.log([rank(x[group != g]) for g in range(10)])
    half = scipy.stats.t.ppf(0.975, 9) * math.sqrt(0.9 * ((without - without.mean()) ** 2).sum())
    entropy = 10 * math.log(rank(x)) - 9 * without.mean()
    assert found.value == pytest.approx(math.exp(entropy))
    low, high = math.exp(entropy - half), min(math.exp(entropy + half), 4.0)
    assert found.interval == pytest.approx((low, high))
    assert found.nulls[0].level == 4.0


@pytest.mark.parametrize(
    ("d", "n"),
    [(32, 200), (32, 2000), (192, 400), pytest.param(192, 20000, marks=pytest.mark.slow)],
)
def test_rank_of_a_known_spectrum_is_found_from_few_rows(d, n):
    scales = torch.arange(1.0, d + 1) ** -0.5
    shares = (scales.square() / scales.square().sum()).double()
    true = math.exp(float(-(shares * shares.log()).sum()))
    rows = torch.randn(n, d, generator=generator(1, d, n)) * scales
    found = rank_estimate(held_out(rows, torch.arange(n) // max(n // 40, 1)), PLACE)
    plain = effective_rank(rows.T.cov())
    assert found.value == pytest.approx(true, rel=0.04)
    if n < 1000:
        assert plain < 0.95 * true
    assert found.interval[0] < true < found.interval[1]


def test_isotropic_null_knows_the_number_of_rows():
    random = generator(3, "rows")
    few = rank_estimate(held_out(torch.randn(11, 10, generator=random), torch.arange(11)), PLACE)
    many = rank_estimate(
        held_out(torch.randn(3000, 10, generator=random), torch.arange(3000)), PLACE
    )
    drawn = np.random.default_rng(0).normal(size=(200, 11, 10))
    ranks = [math.exp(scipy.stats.entropy(np.linalg.eigvalsh(np.cov(x.T)))) for x in drawn]
    assert few.chance == pytest.approx(np.mean(ranks), abs=0.5)
    assert many.chance == pytest.approx(10.0, abs=0.05)
    assert not few.apart
    assert not many.apart
    line = torch.randn(3000, 1, generator=random) * torch.ones(10)
    assert rank_estimate(held_out(line, torch.arange(3000)), PLACE).verdict == "below"


def test_one_document_has_no_interval():
    rows = torch.randn(9, 3, generator=generator(0, "one"))
    found = rank_estimate(held_out(rows, torch.zeros(9, dtype=torch.long)), PLACE)
    assert 1 < found.value < 3
    assert all(math.isnan(bound) for bound in found.interval)
