"""Near-copies count as one."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lorascope.randomness import generator
from lorascope.stats import clusters as module
from lorascope.stats.clusters import (
    clusters,
    effective_number,
    mean_interval,
    quantile_interval,
    share_interval,
)
from lorascope.stats.intervals import normal_interval, wilson_interval


def at(degrees):
    radians = torch.tensor(degrees) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_clusters_by_hand(monkeypatch):
    # cos 25° = 0.906 and cos 40° = 0.77; the third is −1 times a near-copy of the first.
    directions = at([0.0, 90.0, 190.0, 25.0, 100.0])
    assert clusters(directions).tolist() == [0, 1, 0, 0, 1]
    assert clusters(3 * directions, 0.99).tolist() == [0, 1, 2, 3, 4]
    # 20° from one another, yet not linked through others: 0° takes 20°, and 40° begins anew.
    assert clusters(at([0.0, 20.0, 40.0, 60.0])).tolist() == [0, 0, 1, 1]
    monkeypatch.setattr(module, "_CHUNK", 2)
    assert clusters(directions).tolist() == [0, 1, 0, 0, 1]
    assert clusters(torch.zeros(3, 2)).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="threshold"):
        clusters(directions, 0.0)


def test_without_copies_the_intervals_are_the_usual_ones():
    values = torch.randn(30, generator=generator(1))
    labels = torch.arange(30)
    assert mean_interval(values, labels) == normal_interval(values)
    assert share_interval(values > 0, labels) == pytest.approx(
        wilson_interval(int((values > 0).sum()), 30)
    )


def test_exact_copies_are_worth_one_each():
    values = torch.randn(25, generator=generator(2)).double()
    copied, labels = values.repeat_interleave(4), torch.arange(25).repeat_interleave(4)
    assert mean_interval(copied, labels) == pytest.approx(normal_interval(values))
    # s²/n with n − 1 in s: of 25 shares, 24 are known.
    assert effective_number(copied > 0, labels) == pytest.approx(24)
    assert effective_number(copied > -100, labels) == 25
    low, high = quantile_interval(copied, 0.5, labels)
    alone = quantile_interval(values, 0.5, torch.arange(25))
    assert (low, high) == pytest.approx(alone, abs=0.25)
    assert math.isnan(mean_interval(copied, 0 * labels)[0])


def test_blocks_of_ten_copies_cover_where_latents_would_not():
    held = {"clusters": 0, "latents": 0, "share": 0, "median": 0}
    repeats, truth = 400, stats.norm.sf(0.5 / math.sqrt(1.01))
    for i in range(repeats):
        g = generator(4, i)
        block = torch.arange(40).repeat_interleave(10)
        rows = torch.randn(40, 16, generator=g)[block] + 0.05 * torch.randn(400, 16, generator=g)
        values = torch.randn(40, generator=g)[block] + 0.1 * torch.randn(400, generator=g)
        labels = clusters(rows)
        for name, (low, high), true in (
            ("clusters", mean_interval(values, labels), 0.0),
            ("latents", normal_interval(values), 0.0),
            ("share", share_interval(values > 0.5, labels), truth),
            ("median", quantile_interval(values, 0.5, labels), 0.0),
        ):
            held[name] += low <= true <= high
    shares = {name: count / repeats for name, count in held.items()}
    assert shares.pop("latents") < 0.65
    assert all(0.93 - 0.025 <= share <= 0.97 + 0.025 for share in shares.values()), shares
