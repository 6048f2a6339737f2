"""Intervals by hand, against SciPy, and by how often they cover the truth."""

import math

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


def test_newcombe_against_his_published_table():
    # Newcombe 1998, table II, method 10.
    found = intervals.newcombe_interval((56, 48), (70, 80))
    assert found == pytest.approx((0.0524, 0.3339), abs=5e-5)
    found = intervals.newcombe_interval((9, 3), (10, 10))
    assert found == pytest.approx((0.1705, 0.8090), abs=5e-5)
    low, high = intervals.newcombe_interval((3, 9), (10, 10))
    assert (low, high) == pytest.approx((-0.8090, -0.1705), abs=5e-5)
    assert math.isnan(intervals.newcombe_interval((0, 3), (0, 10))[0])


def test_a_ratio_of_shares_leaves_no_difference_at_either_end():
    # MOVER: the end r is where the interval of p − r q, squares added, ends at 0.
    p, q = 30 / 40, 12 / 50
    (l1, u1), (l2, u2) = intervals.wilson_interval(30, 40), intervals.wilson_interval(12, 50)
    low, high = intervals.share_ratio_interval((30, 12), (40, 50))
    assert p - low * q == pytest.approx(math.hypot(p - l1, low * (u2 - q)))
    assert high * q - p == pytest.approx(math.hypot(u1 - p, high * (q - l2)))
    assert low < p / q < high
    assert math.isnan(intervals.share_ratio_interval((3, 0), (10, 10))[0])
    assert intervals.share_ratio_interval((0, 5), (10, 10))[0] == 0
    # Upside down.
    turned = intervals.share_ratio_interval((12, 30), (50, 40))
    assert turned == pytest.approx((1 / high, 1 / low))


@pytest.mark.parametrize(("first", "second"), [((8, 20), (0.5, 0.3)), ((200, 57), (0.1, 0.2))])
def test_differences_and_ratios_of_shares_cover(first, second):
    held = [0, 0]
    for i in range(1500):
        g = generator(3, i)
        hits = tuple(
            int((torch.rand(n, generator=g) < p).sum()) for n, p in zip(first, second, strict=True)
        )
        low, high = intervals.newcombe_interval(hits, first)
        held[0] += low <= second[0] - second[1] <= high
        low, high = intervals.share_ratio_interval(hits, first)
        held[1] += math.isnan(low) or low <= second[0] / second[1] <= high
    assert all(0.93 - 0.012 <= one / 1500 <= 0.97 + 0.012 for one in held)


def test_order_statistics_by_hand():
    # Of 1..100 the i-th is i: the median lies above the low end with 97.5 %, by Beta(i, 101−i).
    shuffled = torch.arange(1.0, 101.0)[torch.randperm(100, generator=generator(0))]
    low, high = intervals.order_statistic_interval(shuffled, 0.5)
    # Between the ranks of the binomial's own, 40 and 41 (96.5 and 94.3 % with their mirrors).
    assert 40 < low < 41
    assert low + high == pytest.approx(101)
    assert stats.beta.cdf(0.5, low, 101 - low) == pytest.approx(0.975)
    low, high = intervals.order_statistic_interval(shuffled, 0.9)
    assert stats.beta.cdf(0.9, [low, high], [101 - low, 101 - high]) == pytest.approx(
        [0.975, 0.025]
    )
    # As many as 25 independent ones: the same shares of the ranks.
    low, high = intervals.order_statistic_interval(shuffled, 0.5, effective=25)
    rank = 26 * low / 101
    assert stats.beta.cdf(0.5, rank, 26 - rank) == pytest.approx(0.975)
    # Too few values for an end.
    for n, q in ((5, 0.5), (34, 0.9)):
        assert math.isnan(intervals.order_statistic_interval(torch.arange(float(n)), q)[0])
    assert intervals.order_statistic_interval(torch.arange(6.0), 0.5)[0] < 0.2
    with pytest.raises(ValueError, match="q=1"):
        intervals.order_statistic_interval(shuffled, 1.0)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_order_statistics_cover_a_skewed_quantile(q):
    truth = math.exp(stats.norm.ppf(q))
    share = coverage(lambda g: (intervals.order_statistic_interval(draws(150, g).exp(), q), truth))
    assert 0.9 <= share <= 0.99


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
        intervals.jackknife_interval(1.0, [1.0]),
        intervals.wilson_interval(0, 0),
        intervals.within(intervals.UNKNOWN, 0, 1),
    ):
        assert all(math.isnan(bound) for bound in interval)


def test_within_cuts_to_the_possible():
    assert intervals.within((-0.2, 0.4), 0, 1) == (0, 0.4)
    assert intervals.within((0.9, 1.3), 0, 1) == (0.9, 1)
