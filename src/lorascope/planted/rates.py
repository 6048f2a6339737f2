"""How often measures report a finding where there is none, compared with the nominal rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats

from lorascope.measures.definitions import definition
from lorascope.planted.shares import LEVEL
from lorascope.results import Estimate
from lorascope.stats.intervals import Interval, wilson_interval

# What a verdict at 95 % may get wrong, and how sure one must be that it gets more wrong.
NOMINAL, SURE = 0.05, 1 - LEVEL
# Their headline null is a bound, not a level: a floor, or the hardest of several controls. Only
# a value beyond it counts.
_BOUNDED = ("delta_norm", "weights.norm", "weights.relative", "recovery.")


@dataclass(frozen=True)
class Rate:
    """False positives of one measure.

    Attributes:
        measure, null: which measure, and its headline null (several where it varies).
        found: repeats in which the verdict was "above" or "below".
        repeats: how many there were.
    """

    measure: str
    null: str
    found: int
    repeats: int

    @property
    def rate(self) -> float:
        """Share of repeats with a finding."""
        return self.found / self.repeats

    @property
    def interval(self) -> Interval:
        """95 % interval of the rate."""
        return wilson_interval(self.found, self.repeats)

    @property
    def passed(self) -> bool:
        """Whether as many findings may come of a true rate of 5 %."""
        return self.found <= allowed(self.repeats)


def allowed(repeats: int) -> int:
    """The most false positives that 5 % makes likely: the 97.5 % quantile of the binomial."""
    return int(stats.binom.ppf(SURE, repeats, NOMINAL))


def false_positives(repeats: Iterable[Iterable[Estimate]]) -> list[Rate]:
    """One rate a measure, from the estimates of many repeats with nothing to find."""
    counts: dict[str, tuple[int, int]] = {}
    nulls: dict[str, dict[str, None]] = {}
    for estimates in repeats:
        for estimate in estimates:
            found, total = counts.get(estimate.measure, (0, 0))
            counts[estimate.measure] = found + is_finding(estimate), total + 1
            null = estimate.headline
            nulls.setdefault(estimate.measure, {})["" if null is None else null.name] = None
    return [
        Rate(measure, ", ".join(nulls[measure]), found, total)
        for measure, (found, total) in counts.items()
    ]


def is_finding(estimate: Estimate) -> bool:
    """Whether the verdict says that something was found."""
    if estimate.measure.startswith(_BOUNDED):
        return estimate.verdict == definition(estimate.measure).apart
    return estimate.apart
