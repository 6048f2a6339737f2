"""What the first screen says was found: primary numbers at a stated rate, beside null adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from lorascope.measures.findings import RATE, Family, adapter_families, null_families
from lorascope.report.formatting import listing, number, plural
from lorascope.report.result import Results
from lorascope.results import ADAPTER, Estimate
from lorascope.studies.audit.sections.topics import TOPICS, topic_of

_AT: Final = f"at a false discovery rate of {100 * RATE:.0f} %"
# Said before sentences that count single intervals, so that they are not taken for findings.
SINGLE: Final = "By single intervals"
SINGLE_MEANS: Final = (
    "The sentences below that begin so take each adapter, site and seed by its own 95 % interval, "
    "without the correction for how many numbers there are: it can hold more often than something "
    "is found."
)
HOW: Final = (
    "Null adapters, random updates of each adapter's own sizes that go through everything the "
    "adapter goes through, give them: controls.null_adapters of 2 or more, better 3."
)


@dataclass(frozen=True)
class AdapterQuestion:
    """One question about one adapter.

    Attributes:
        title: the topic's.
        found, tested: at how many sites, or once where the number has none.
        opposite: significant on the other side.
    """

    title: str
    found: int
    tested: int
    opposite: int

    @property
    def text(self) -> str:
        """`Directions at 2 of 3 sites`."""
        if self.tested == 1:
            return self.title
        return f"{self.title} at {self.found} of {self.tested} sites"


@dataclass(frozen=True)
class Findings:
    """The families of a run, read from its results.

    Attributes:
        adapters: one an adapter.
        nulls: one a null adapter.
        has_nulls: whether the run holds numbers of null adapters.
    """

    adapters: list[Family]
    nulls: list[Family]
    has_nulls: bool

    @classmethod
    def of(cls, results: Results) -> Findings:
        """From every number of a run."""
        return cls(
            adapter_families(results.numbers),
            null_families(results.estimates.of_nulls),
            any(e.key.null == ADAPTER for e in results.estimates.of_nulls),
        )

    @cached_property
    def tested(self) -> bool:
        """Whether any primary number has a rival null."""
        return any(family.tested for family in self.adapters)

    @property
    def overall(self) -> str:
        """How much was found, and how much a null adapter gives in this run."""
        if not self.adapters:
            return ""
        if not self.tested:
            return (
                f"No primary number of this run has a rival null, so nothing is called found. {HOW}"
            )
        tried = [family for family in self.adapters if family.tested]
        counts = listing(
            [f"{len(f.found)} of {len(f.tested)} for {f.adapter}" for f in tried], most=8
        )
        return f"Primary numbers found {_AT}: {counts}. {self.of_nulls}"

    @property
    def of_nulls(self) -> str:
        """How many findings a null adapter yields by the same rule."""
        if not self.nulls:
            if self.has_nulls:
                return "Too few null adapters to say how many findings one of them yields."
            return f"How many of them a null adapter would yield is not known. {HOW}"
        counts = [len(family.found) for family in self.nulls]
        most = max(len(family.tested) for family in self.nulls)
        mean = sum(counts) / len(counts)
        reach = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else "each alike"
        return (
            f"A null adapter of this run yields {number(mean)} of {most} by the same rule (mean "
            f"over {plural(len(counts), 'null adapter')}; {reach})."
        )

    @property
    def leads(self) -> list[tuple[str, str]]:
        """Each adapter, and what was found of it by question."""
        return [(f.adapter, _sentence(questions(f))) for f in self.adapters if f.tested]


def questions(family: Family) -> list[AdapterQuestion]:
    """The questions of which a family has tested numbers, in the report's order."""
    found = []
    for topic in TOPICS:
        tested, apart, opposite = (
            sum(topic_of(e.measure) == topic for e in several)
            for several in (family.tested, family.found, family.opposite)
        )
        if tested:
            found.append(AdapterQuestion(topic.title, apart, tested, opposite))
    return found


def _sentence(asked: Sequence[AdapterQuestion]) -> str:
    found = [question.text for question in asked if question.found]
    empty = [question.title for question in asked if not question.found]
    turned = [question.title for question in asked if question.opposite]
    said = f"Found {_AT}: {listing(found, most=12)}." if found else f"Nothing was found {_AT}."
    if found and empty:
        said += f" Not found: {listing(empty, most=12)}."
    if turned:
        said += f" On the other side of chance, and no finding: {listing(turned, most=12)}."
    return said


def judged(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Those that have a rival null: verdicts of the others are never counted."""
    return [estimate for estimate in estimates if estimate.rivals]
