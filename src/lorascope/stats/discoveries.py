"""Discoveries among many tests, and exact tests by exchange within units."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

Floats = np.ndarray[Any, np.dtype[np.float64]]


def adjusted(p: Floats) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p-values: at most this share of false discoveries
    among all with no larger one."""
    if not len(p):
        return p.astype(float)
    order = np.argsort(p)
    ranked = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty(len(p))
    found[order] = np.minimum.accumulate(ranked[::-1])[::-1].clip(max=1.0)
    return found


def exchange_p(
    own: Int[np.ndarray, "tests units"], group: Int[np.ndarray, "members tests units"]
) -> tuple[Float[np.ndarray, " tests"], Float[np.ndarray, " tests"]]:
    """Exact one-sided p-values of Σ own over units, under exchange within each unit.

    Within every unit, and of one unit independently of the others, the value that is called one's
    own is any of the group's with equal odds. The law of the sum is the convolution of the units'
    laws, so that nothing is drawn.

    Args:
        own: counts ≥ 0.
        group: the counts of all members, the own ones among them; −1 for a member that takes no
            part in that test and unit.

    Returns:
        p-values, and the least that each test could have reached whoever had been called one's
        own: they depend on the groups alone, and tests that could reach nothing may be left out
        (Tarone 1990, Biometrics 46:515).
    """
    most = int(group.max(initial=0))
    members = (group >= 0).sum(0).clip(min=1)
    shares = np.stack([(group == value).sum(0) / members for value in range(most + 1)], -1)
    tests, units = own.shape
    law = np.zeros((tests, most * units + 1))
    law[:, 0] = 1.0
    least = np.ones(tests)
    for unit in range(units):
        later = np.zeros_like(law)
        for value in range(most + 1):
            length = law.shape[1] - value
            later[:, value:] += law[:, :length] * shares[:, unit, value, None]
        law = later
        top = group[:, :, unit].max(0).clip(min=0)
        least *= shares[np.arange(tests), unit, top]
    tails = law[:, ::-1].cumsum(1)[:, ::-1]
    p = tails[np.arange(tests), own.sum(1)]
    return p.clip(max=1.0), least


def exchange_z(
    own: Float[np.ndarray, "tests units"], group: Float[np.ndarray, "members tests units"]
) -> Float[np.ndarray, " tests"]:
    """How far Σ own over units lies from its mean under exchange, in standard deviations.

    As `exchange_p`, for values of any kind: mean and variance of the sum under exchange are exact
    (unit by unit the group's mean and variance), and for many units its law is near a normal one.
    0 where the group's values are all alike.
    """
    spread = np.sqrt(group.var(0).sum(-1))
    gap = (own - group.mean(0)).sum(-1)
    still = spread <= 1e-12 * np.abs(group).max((0, 2), initial=1e-300)
    return np.where(still, 0.0, gap / np.where(still, 1.0, spread))
