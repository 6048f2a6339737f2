"""The expanded percentile interval."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lorascope.randomness import generator
from lorascope.stats import bootstrap as module
from lorascope.stats.bootstrap import bootstrap


def mean(sums):
    return sums[:, 0] / sums[:, 1]


def drawn(count, g):
    values = torch.randn(count, generator=g, dtype=torch.float64)
    return torch.stack([values, torch.ones_like(values)], dim=1)


def test_percentiles_are_those_of_t_for_a_normal_mean():
    # Resampled means are normal with variance s²(n−1)/n², and the t half-width is s t/√n.
    rows = drawn(12, generator(0))
    low, high = bootstrap(mean, rows, rows[:, 1], generator(1), repeats=40000)
    half = stats.t.ppf(0.975, 11) * float(rows[:, 0].std()) / math.sqrt(12)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)


def test_covers_with_eight_documents_and_has_nothing_of_seven():
    held = 0
    for i in range(600):
        rows = drawn(8, generator(2, i))
        low, high = bootstrap(mean, rows, rows[:, 1], generator(3, i), repeats=400)
        held += low <= 0 <= high
    assert 0.93 - 0.02 <= held / 600 <= 0.97 + 0.02
    rows = drawn(7, generator(0))
    assert all(map(math.isnan, bootstrap(mean, rows, rows[:, 1], generator(1))))


def test_in_several_steps_and_with_empty_documents(monkeypatch):
    rows = drawn(50, generator(5))
    rows[:10] = 0.0
    at_once = bootstrap(mean, rows, rows[:, 1], generator(6), repeats=300)
    assert at_once[0] < float(rows[:, 0].sum() / rows[:, 1].sum()) < at_once[1]
    monkeypatch.setattr(module, "_COUNTS", 1700)
    assert bootstrap(mean, rows, rows[:, 1], generator(6), repeats=300) == pytest.approx(at_once)
    # Repeats without a number are passed over.
    odd = bootstrap(
        lambda s: torch.where(s[:, 0] > 0, mean(s), torch.nan),
        rows,
        rows[:, 1],
        generator(6),
        repeats=300,
    )
    assert odd[0] > 0
