"""Intervals by hand, against SciPy, and by how often they cover the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lorascope.randomness import generator
from lorascope.stats import intervals

REPEATS = 300


def coverage(trial):
    """Share of trials whose (interval, truth) covers."""
    covered = 0
    for i in range(REPEATS):
        (low, high), truth = trial(generator(0, i))
        covered += low <= truth <= high
    return covered / REPEATS


def draws(n, g):
    return torch.randn(n, generator=g, dtype=torch.float64)


def test_normal_interval_equals_scipys_t_interval():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    expected = stats.t.interval(0.95, 3, loc=4.0, scale=stats.sem(values.numpy()))
    assert intervals.normal_interval(values) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 200])
def test_normal_interval_covers(n):
    assert 0.9 <= coverage(lambda g: (intervals.normal_interval(5 + 2 * draws(n, g)), 5)) <= 0.99


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (1, 20), (7, 31), (20, 20)])
def test_wilson_interval_equals_scipys(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert intervals.wilson_interval(successes, n) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_interval_reaches_the_ends_exactly_and_refuses_nonsense():
    for n in range(1, 60):
        assert intervals.wilson_interval(0, n)[0] == 0.0
        assert intervals.wilson_interval(n, n)[1] == 1.0
    with pytest.raises(ValueError, match="3 successes of 2"):
        intervals.wilson_interval(3, 2)


def test_order_statistics_by_hand():
    # Binomial(100, 0.5): 2.5 % at 40, 97.5 % at 60, so the 40th and 61st of 1..100.
    shuffled = torch.arange(1.0, 101.0)[torch.randperm(100, generator=generator(0))]
    assert intervals.order_statistic_interval(shuffled, 0.5) == (40.0, 61.0)
    # Too few values for the 90th percentile: the largest stands in.
    assert intervals.order_statistic_interval(torch.arange(1.0, 6.0), 0.9) == (3.0, 5.0)
    with pytest.raises(ValueError, match="q=1"):
        intervals.order_statistic_interval(shuffled, 1.0)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_order_statistics_cover_a_skewed_quantile(q):
    truth = math.exp(stats.norm.ppf(q))
    share = coverage(lambda g: (intervals.order_statistic_interval(draws(150, g).exp(), q), truth))
    assert 0.9 <= share <= 0.99


def documents(g, count=60):
    """Documents of 1 to 40 tokens whose tokens share an offset: tokens are not independent."""
    lengths = torch.randint(1, 41, (count,), generator=g).double()
    return lengths * (1 + draws(count, g)) + lengths.sqrt() * draws(count, g), lengths


def test_bootstrap_by_documents_covers_where_tokens_would_not():
    def by_document(g):
        return intervals.bootstrap_ratio(*documents(g), g, repeats=200), 1.0

    def as_if_tokens_were_independent(g):
        sums, lengths = documents(g)
        half = 1.96 * math.sqrt(2 / lengths.sum())
        mean = (sums.sum() / lengths.sum()).item()
        return (mean - half, mean + half), 1.0

    assert 0.89 <= coverage(by_document) <= 0.99
    assert coverage(as_if_tokens_were_independent) < 0.6


def test_bootstrap_agrees_with_scipy():
    sums, lengths = documents(generator(1), count=100)
    expected = stats.bootstrap(
        (sums.numpy(), lengths.numpy()),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = intervals.bootstrap_ratio(sums, lengths, generator(2), repeats=4000)
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.06 * width)
    assert high == pytest.approx(expected.high, abs=0.06 * width)


def test_bootstrap_of_a_paired_statistic_keeps_the_pairing():
    # Errors of one dictionary are half those of the other in every document: no spread is left.
    errors = documents(generator(3))[0].abs()
    table = torch.stack([errors, 2 * errors], dim=1)
    low, high = intervals.bootstrap(lambda s: 1 - s[:, 0] / s[:, 1], table, generator(4))
    assert (low, high) == pytest.approx((0.5, 0.5))


def test_bootstrap_in_several_steps_and_with_empty_documents(monkeypatch):
    sums, counts = documents(generator(5), count=50)
    sums[:10] = counts[:10] = 0.0
    at_once = intervals.bootstrap_ratio(sums, counts, generator(6), repeats=300)
    monkeypatch.setattr(intervals, "_COUNTS", 1700)
    in_steps = intervals.bootstrap_ratio(sums, counts, generator(6), repeats=300)
    assert at_once == pytest.approx(in_steps)
    assert at_once[0] < sums.sum() / counts.sum() < at_once[1]


def test_jackknife_by_hand_and_covering():
    # mean 2, squares sum to 2, variance (3 − 1)/3 · 2 = 4/3, t with 2 degrees 4.30265.
    half = 4.302652729911275 * math.sqrt(4 / 3)
    assert intervals.jackknife_interval(5.0, [1.0, 2.0, 3.0]) == pytest.approx((5 - half, 5 + half))

    def log_mean(g):
        x = 3 + draws(200, g)
        without = [x[torch.arange(200) % 10 != i].mean().log().item() for i in range(10)]
        return intervals.jackknife_interval(x.mean().log().item(), without), math.log(3)

    assert 0.9 <= coverage(log_mean) <= 0.99


def test_prediction_interval_by_hand_and_covering_the_next_draw():
    # mean 2, s = 1, t with 2 degrees.
    half = 4.302652729911275 * math.sqrt(4 / 3)
    assert intervals.prediction_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half))

    def next_draw(g):
        x = draws(6, g)
        return intervals.prediction_interval(x[:5].tolist()), x[5].item()

    assert 0.9 <= coverage(next_draw) <= 0.99


def test_prediction_interval_of_equal_draws_is_exactly_their_value():
    assert intervals.prediction_interval([0.1] * 7) == (0.1, 0.1)
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        intervals.prediction_interval([1.0])


def test_one_value_leaves_the_interval_unknown():
    one = torch.ones(1)
    for interval in (
        intervals.normal_interval(one),
        intervals.order_statistic_interval(one, 0.5),
        intervals.bootstrap_ratio(one, one, generator(0)),
        intervals.jackknife_interval(1.0, [1.0]),
        intervals.wilson_interval(0, 0),
        intervals.within(intervals.UNKNOWN, 0, 1),
    ):
        assert all(math.isnan(bound) for bound in interval)


def test_within_cuts_to_the_possible():
    assert intervals.within((-0.2, 0.4), 0, 1) == (0, 0.4)
    assert intervals.within((0.9, 1.3), 0, 1) == (0.9, 1)
