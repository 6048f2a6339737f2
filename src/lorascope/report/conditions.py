"""Picking and counting estimates: one condition is an adapter at a site, for one seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lorascope.measures.definitions import definition_of
from lorascope.report.result import Results
from lorascope.results import Estimate, Verdict
from lorascope.results.labels import Of


@dataclass(frozen=True)
class VerdictTally:
    """How many conditions lie above and below chance, equal it, or are not settled.

    Attributes:
        above, equal, below: counts of these verdicts.
        without: no verdict, or none beside a rival null.
        unsettled: neither apart nor equal within the margin.
    """

    above: int
    equal: int
    below: int
    without: int
    unsettled: int = 0

    @classmethod
    def of(cls, estimates: Iterable[Estimate]) -> VerdictTally:
        """Count the verdicts; those beside references alone are none that may be counted."""
        verdicts: list[Verdict] = [e.verdict if e.rivals else "no verdict" for e in estimates]
        return cls(
            verdicts.count("above"),
            verdicts.count("equal"),
            verdicts.count("below"),
            verdicts.count("no verdict"),
            verdicts.count("not settled"),
        )

    @property
    def total(self) -> int:
        """All conditions counted."""
        return self.above + self.equal + self.below + self.without + self.unsettled

    def found(self, measure: str) -> int:
        """Conditions on the side of chance that means something was found."""
        sides = {"above": self.above, "below": self.below, "either": self.above + self.below}
        return sides[definition_of(measure).apart]


def measured(
    results: Results, measure: str, of: Of | None = None, *, first_seed: bool = False
) -> list[Estimate]:
    """The estimates of a measure that have a value, one per adapter, site, seed and dictionaries.

    Where a number was taken at several settings, the first in the table speaks for it; with
    `first_seed`, likewise the lowest seed. Where massive coordinates keep it from a verdict, the
    number without them does.
    """
    chosen: dict[tuple[object, ...], Estimate] = {}
    without = {e.key: e for e in results.numbers.taken(measure, massive="without") if e.judged}
    for taken in results.numbers.taken(measure):
        twin = None if taken.judged else without.get(replace(taken.key, massive="without"))
        estimate = twin or taken
        key, own = estimate.key, Of.key(estimate.key)
        if of in (None, own) and not math.isnan(estimate.value):
            chosen.setdefault((key.adapter, key.compared, key.site, key.seed, own), estimate)
    rows = list(chosen.values())
    return lowest_seed(rows) if first_seed else rows


def lowest_seed(estimates: Sequence[Estimate]) -> list[Estimate]:
    """For each adapter, site and dictionary, the estimate of the lowest seed."""
    chosen: dict[tuple[object, ...], Estimate] = {}
    for estimate in sorted(estimates, key=lambda e: e.key.seed or 0):
        key = estimate.key
        chosen.setdefault((key.adapter, key.compared, key.site, Of.key(key)), estimate)
    kept = {id(estimate) for estimate in chosen.values()}
    return [estimate for estimate in estimates if id(estimate) in kept]


def seeds(results: Results) -> list[int]:
    """The seeds that occur, ascending."""
    found = {estimate.key.seed for estimate in results.numbers}
    return sorted(seed for seed in found if seed is not None)


def against_reference(
    estimates: Sequence[Estimate], references: Sequence[Estimate]
) -> VerdictTally:
    """Where estimates lie against a yardstick of the same site and seed, interval to interval.

    Estimates whose site and seed have no yardstick are counted as `without`.
    """
    by_place = {(r.key.site, r.key.seed): r for r in references}
    counts = dict.fromkeys(("above", "equal", "below", "without", "unsettled"), 0)
    for estimate in estimates:
        reference = by_place.get((estimate.key.site, estimate.key.seed))
        counts[_side(estimate, reference)] += 1
    return VerdictTally(**counts)


def bounds(estimate: Estimate) -> tuple[float, float]:
    """The estimate's interval, or the value twice where it has none."""
    low, high = (estimate.value if math.isnan(b) else b for b in estimate.interval)
    return low, high


def _side(estimate: Estimate, reference: Estimate | None) -> str:
    if reference is None:
        return "without"
    low, high = bounds(estimate)
    reference_low, reference_high = bounds(reference)
    if low > reference_high:
        return "above"
    return "below" if high < reference_low else "unsettled"
