"""Claims of the report: how often something holds beside every rival, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.report.conditions import VerdictTally
from lorascope.report.formatting import listing, share, span
from lorascope.results import Estimate
from lorascope.studies.audit.sections.findings import judged


def ranges(rows: Sequence[Estimate]) -> str:
    """The values' range beside that of their chance levels, whose nulls are named."""
    text = span(row.value for row in rows)
    chances = [row.chance for row in rows if row.nulls]
    if not chances:
        return text
    nulls = listing(
        list(dict.fromkeys(row.headline.name for row in rows if row.headline is not None))
    )
    return f"{text} against chance {span(chances)} ({nulls})"


def said(
    claim: str, rows: Sequence[Estimate], side: str, numbers: str, noun: str = "condition"
) -> str:
    """A claim with how often it holds, and the numbers; the numbers alone beside references."""
    with_rival = judged(rows)
    if not with_rival:
        return f"{numbers[0].upper()}{numbers[1:]}: no rival null, so nothing is claimed."
    return f"{claim} {count(with_rival, side, noun)}: {numbers}."


def count(rows: Sequence[Estimate], side: str, noun: str = "condition") -> str:
    """How many lie on a side; the other side is named and never added."""
    tally = VerdictTally.of(rows)
    text = share(getattr(tally, side), tally.total, noun)
    other = "above" if side == "below" else "below"
    opposite = getattr(tally, other)
    return f"{text}, on the other side of chance in {opposite}" if opposite else text
