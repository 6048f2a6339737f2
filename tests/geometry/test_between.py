"""Debiased CKA between groups of documents, against sums over all pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lorascope.geometry.between import between_groups, shifted_pairs
from lorascope.geometry.chance import shifted
from lorascope.geometry.cka import SiteMoments, cka

GROUP = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 0])


def rows(n=12, d=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=random) * torch.tensor([2.0, 1.0, 0.5]) + 1
    return base, 0.4 * base.flip(1) + torch.randn(n, d, generator=random)


def brute(x, y, group):
    """HSIC from every pair, triple and quadruple of rows whose groups all differ."""
    x, y = (m.double().numpy() - m.double().numpy().mean(0) for m in (x, y))
    k, m, g = x @ x.T, y @ y.T, group.tolist()

    def mean(size, read):
        found = [
            read(*at)
            for at in itertools.product(range(len(g)), repeat=size)
            if len({g[i] for i in at}) == size
        ]
        return np.mean(found)

    pairs = mean(2, lambda i, j: k[i, j] * m[i, j])
    triples = mean(3, lambda i, j, q: k[i, j] * m[i, q])
    return pairs - 2 * triples + mean(4, lambda i, j, q, r: k[i, j] * m[q, r])


def test_both_pairs_and_each_group_left_out_are_those_of_all_pairs():
    base, delta = rows()
    deltas = {"other": 3 * delta.flip(0), "a": delta}
    moments = SiteMoments(base, deltas).update(base, deltas)
    found, plain = between_groups(moments, base, deltas, GROUP)
    pairs, without, own = found["a"].pairs()
    adapted = base + delta
    alone = [brute(m, m, GROUP) for m in (base, delta, adapted)]
    assert own == pytest.approx(alone, rel=1e-5)
    expected = [
        brute(base, m, GROUP) / math.sqrt(alone[0] * alone[i + 1])
        for i, m in enumerate((delta, adapted))
    ]
    assert pairs == pytest.approx(expected, rel=1e-5)
    assert (len(without), len(plain["a"])) == (5, 5)
    kept = GROUP != 1
    expected = cka(base[kept], delta[kept]).plain
    assert plain["a"][1].base_delta.plain == pytest.approx(expected, rel=1e-5)


def test_moved_rows():
    base, delta = rows()
    found = shifted_pairs(base, {"a": delta}, GROUP, 3, torch.Generator().manual_seed(4))
    moved = shifted(delta, 3, torch.Generator().manual_seed(4))
    assert not torch.equal(moved, delta)
    assert found["a"][0].between == pytest.approx(brute(base, moved, GROUP), rel=1e-4)
    x, y = (m.double() - m.double().mean(0) for m in (base, moved))
    assert found["a"][0].plain == pytest.approx(float((x.T @ y).square().sum()), rel=1e-5)
    moved = shifted(base + delta, 3, torch.Generator().manual_seed(4))
    assert found["a"][1].between == pytest.approx(brute(base, moved, GROUP), rel=1e-4)


def test_fewer_than_four_groups_have_no_quadruples():
    base, delta = rows()
    moments = SiteMoments(base, {"a": delta}).update(base, {"a": delta})
    with pytest.raises(ValueError, match="4 groups, 3 seen"):
        between_groups(moments, base, {"a": delta}, GROUP % 3)
    # With four there is a number, and none is left out.
    found, _ = between_groups(moments, base, {"a": delta}, GROUP % 4)
    assert found["a"].pairs()[1] == []
