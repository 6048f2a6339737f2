"""Sentences made from the numbers of readings."""

from __future__ import annotations

from lorascope.report.conditions import measured
from lorascope.report.result import Results
from lorascope.studies.audit.sections.claims import ranges, said


def reading_sentences(results: Results) -> list[str]:
    """What comes back, how much probability moves, and KL on ordinary text."""
    sentences = []
    for measure, claim, what in (
        (
            "reading.recurring",
            "What comes back at some prompts is said at others more often than chance by",
            "share of continuations",
        ),
        (
            "reading.moved",
            "More probability moves between words of ordinary text than chance for",
            "share of probability",
        ),
    ):
        rows = measured(results, measure)
        if rows:
            sentences.append(said(claim, rows, "above", f"{what} {ranges(rows)}", "adapter"))
    whole = [row for row in measured(results, "reading.kl") if not row.key.setting]
    if whole:
        claim, numbers = "KL on ordinary text is above chance for", f"nats/token {ranges(whole)}"
        sentences.append(said(claim, whole, "above", numbers, "adapter"))
    return sentences
