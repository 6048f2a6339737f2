"""Which of many adapters stand out among those of the same base and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.checking.chance import benjamini_hochberg, robust_z
from lorascope.checking.scanning import Row
from lorascope.randomness import derived_seed

NUMBERS = ("norm", "effective_rank", "largest_share")
# Scores drawn to tell how rare one is; the smallest p-value is one over this.
_DRAWS = 2**20
# Beyond so many adapters alike the law of a score hardly changes.
_LIKE_MANY = 2048


@dataclass(frozen=True)
class Ranked:
    """One adapter of a scan.

    Attributes:
        row: what was read.
        alike: how many adapters of its base and shape it was held against, itself among them.
        z: robust z of the logarithm of each number; nan where there are too few alike.
        p: of the largest |z|, three times the smallest (Bonferroni); nan as `z`.
        q: p adjusted over all adapters (Benjamini & Hochberg).
        review: whether q is at most the rate, or its files have errors.
    """

    row: Row
    alike: int
    z: Mapping[str, float]
    p: float
    q: float
    review: bool

    @property
    def broken(self) -> bool:
        """Whether its files could not be read or have errors, which no rate is about."""
        return bool(self.row["refused"] or self.row["errors"])

    def plain(self) -> dict[str, Any]:
        """One flat row of a table."""
        row = self.row
        return {
            "path": row["path"],
            "review": self.review,
            "p": self.p,
            "q": self.q,
            **{f"z_{name}": self.z[name] for name in NUMBERS},
            "alike": self.alike,
            "type": row["type"],
            "base": row["base"],
            "shape": row["shape"],
            "rank": row["rank"],
            "modules": row["modules"],
            "parameters": row["parameters"],
            **{name: row[name] for name in NUMBERS},
            "largest_module": row["largest_module"],
            "errors": ", ".join(row["errors"]),
            "warnings": ", ".join(row["warnings"]),
            "refused": row["refused"],
        }


def ranked(rows: Sequence[Row], rate: float, least: int) -> list[Ranked]:
    """Adapters by what stands out: broken ones, then by p; in an order that rows' order leaves.

    Args:
        rate: false discovery rate of those named for review.
        least: fewest adapters of one base and shape that are held against one another.
    """
    rows = sorted(rows, key=lambda row: str(row["path"]))
    groups: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if row["norm"] is not None and not row["errors"]:
            groups.setdefault((row["base"], row["shape"]), []).append(i)
    unknown = dict.fromkeys(NUMBERS, math.nan)
    scores, alike = [unknown] * len(rows), [0] * len(rows)
    p = [math.nan] * len(rows)
    for members in groups.values():
        for i in members:
            alike[i] = len(members)
        if len(members) < least:
            continue
        z = {name: _scores(rows, members, name) for name in NUMBERS}
        for place, i in enumerate(members):
            scores[i] = {name: float(z[name][place]) for name in NUMBERS}
            known = [abs(one) for one in scores[i].values() if not math.isnan(one)]
            if known:
                p[i] = min(1.0, len(NUMBERS) * rarity(max(known), len(members)))
    q = benjamini_hochberg(p)
    found = [
        Ranked(row, alike[i], scores[i], p[i], q[i], _review(row, q[i], rate))
        for i, row in enumerate(rows)
    ]
    return sorted(found, key=_order)


def _review(row: Row, q: float, rate: float) -> bool:
    return bool(row["refused"] or row["errors"]) or q <= rate


def _order(one: Ranked) -> tuple[bool, float, float, str]:
    known = [abs(z) for z in one.z.values() if not math.isnan(z)]
    p = math.inf if math.isnan(one.p) else one.p
    return not one.broken, p, -max(known, default=0.0), str(one.row["path"])


def _scores(rows: Sequence[Row], members: Sequence[int], name: str) -> NDArray[np.float64]:
    return robust_z(np.log(np.array([rows[i][name] for i in members], dtype=np.float64)))


def rarity(z: float, among: int) -> float:
    """How often |robust z| of one of so many independent normal numbers is at least this.

    Of few numbers the median deviation varies much, and large scores are common.
    """
    draws = _law(min(among, _LIKE_MANY))
    return float(1 + len(draws) - np.searchsorted(draws, z)) / (1 + len(draws))


@cache
def _law(among: int) -> NDArray[np.float64]:
    random = np.random.default_rng(derived_seed(0, "robust z", among))
    z = robust_z(random.standard_normal((max(1, _DRAWS // among), among)))
    return np.sort(np.abs(z).ravel())
