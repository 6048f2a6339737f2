"""Which of many adapters stand out among those of the same base and shape."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.checking.chance import benjamini_hochberg, robust_z
from lorascope.checking.rows import Row
from lorascope.errors import as_utf8
from lorascope.randomness import derived_seed

NUMBERS = ("norm", "effective_rank", "largest_share")
# Scores drawn to tell how rare one is; the smallest p-value is one over this.
_DRAWS = 2**20
# Beyond so many adapters alike the law of a score hardly changes.
_LIKE_MANY = 2048


@dataclass(frozen=True, slots=True)
class Ranked:
    """One adapter of a scan.

    Attributes:
        path: the adapter's folder.
        broken: whether its files could not be read or have errors, which no rate is about.
        alike: how many adapters of its base and shape it was held against, itself among them.
        z: robust z of the logarithm of each number; nan where there are too few alike.
        p: of the largest |z|, three times the smallest (Bonferroni); nan as `z`.
        q: p adjusted over all adapters (Benjamini & Hochberg).
        review: whether q is at most the rate, or its files have errors.
        rows, place: of the scan, and which row of them is the adapter's.
    """

    path: str
    broken: bool
    alike: int
    z: Mapping[str, float]
    p: float
    q: float
    review: bool
    rows: Sequence[Row] = field(repr=False)
    place: int = field(repr=False)

    @property
    def row(self) -> Row:
        """What was read of it."""
        return self.rows[self.place]

    def plain(self) -> dict[str, Any]:
        """One flat row of a table."""
        row = self.row
        return {
            "path": as_utf8(self.path),
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
            "refused": as_utf8(row["refused"]),
        }


def ranked(rows: Sequence[Row], rate: float, least: int) -> list[Ranked]:
    """Adapters by what stands out: broken ones, then by p; in an order that rows' order leaves.

    Args:
        rate: false discovery rate of those named for review.
        least: fewest adapters of one base and shape that are held against one another.
    """
    facts = [_Facts.of(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: facts[place].path)
    groups: dict[tuple[str, str], list[int]] = {}
    for place in order:
        group = facts[place].group
        if group is not None:
            groups.setdefault(group, []).append(place)
    unknown = dict.fromkeys(NUMBERS, math.nan)
    scores, alike = [unknown] * len(rows), [0] * len(rows)
    p = [math.nan] * len(rows)
    for members in groups.values():
        for place in members:
            alike[place] = len(members)
        if len(members) < least:
            continue
        z = robust_z(np.log(np.array([facts[place].numbers for place in members]).T))
        for place, own in zip(members, z.T.tolist(), strict=True):
            scores[place] = dict(zip(NUMBERS, own, strict=True))
            known = [abs(one) for one in own if not math.isnan(one)]
            if known:
                p[place] = min(1.0, len(NUMBERS) * rarity(max(known), len(members)))
    # In the order of paths: what is equal stays so.
    q = dict(zip(order, benjamini_hochberg([p[place] for place in order]), strict=True))
    found = []
    for place in order:
        path, broken = facts[place].path, facts[place].broken
        review = broken or q[place] <= rate
        own = (alike[place], scores[place], p[place], q[place], review)
        found.append(Ranked(path, broken, *own, rows, place))
    return sorted(found, key=_order)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What of a row decides its rank; `group` is None where it is held against no others."""

    path: str
    broken: bool
    group: tuple[str, str] | None
    numbers: tuple[float, ...]

    @classmethod
    def of(cls, row: Row) -> _Facts:
        broken = bool(row["refused"] or row["errors"])
        path = str(row["path"])
        if row["norm"] is None or row["errors"]:
            return cls(path, broken, None, ())
        # Of many adapters alike these texts are the same.
        group = (sys.intern(row["base"]), sys.intern(row["shape"]))
        return cls(path, broken, group, tuple(float(row[name]) for name in NUMBERS))


def _order(one: Ranked) -> tuple[bool, float, float, str]:
    known = [abs(z) for z in one.z.values() if not math.isnan(z)]
    p = math.inf if math.isnan(one.p) else one.p
    return not one.broken, p, -max(known, default=0.0), one.path


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
