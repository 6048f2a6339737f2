"""How many records, documents and tokens were used, of how many, and why the others were not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.activations.splits import Split


def left_out(what: str, used: int, reasons: Mapping[str, int]) -> dict[str, Any]:
    """A record of the facts: what was used, of how many, and why the others were not.

    Args:
        what: of what kind they are, "held-out tokens".
        reasons: {why: how many were left out for it}; those of none are not told.
    """
    told = [f"{count:,} {why}" for why, count in reasons.items() if count]
    of = used + sum(reasons.values())
    return {"what": what, "used": used, "of": of, "reason": ", ".join(told)}


def of_texts(counts: Mapping[str, int]) -> dict[str, Any]:
    """Of the texts' records, from `text_counts`."""
    reasons = {
        "seen by the adapters, or on the other side": counts.get("seen", 0),
        "empty": counts.get("empty", 0),
        "that stand there twice": counts.get("duplicates", 0),
        "beyond what was asked for": counts.get("surplus", 0),
    }
    return left_out("records of the texts", counts.get("used", 0), reasons)


def text_counts(parts: Split) -> dict[str, int]:
    """What became of every record: those used, and those left out by reason."""
    return {
        **vars(parts.tally),
        "seen": parts.excluded,
        "surplus": parts.surplus,
        "used": len(parts.probe) + len(parts.held_out),
    }


# Above this share of records left out, a person should know.
LEFT_OUT = 0.1


def text_warnings(parts: Split) -> list[str]:
    """A line where more than a tenth of the records are used, and not as they stand."""
    tally, found = parts.tally, []
    reasons = {
        "have half a character, read as U+FFFD": tally.repaired,
    }
    for reason, count in reasons.items():
        if count > LEFT_OUT * max(1, tally.records):
            found.append(f"{count:,} of {tally.records:,} records of the texts {reason}")
    return found
