"""What a definition holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Definition:
    """What a number is.

    Attributes:
        title: what tables and figures call it.
        unit: unit of the number.
        formula: how it is computed.
        chance: its chance levels, the headline null first.
        interval: what the 95 % interval varies.
        file: where it is computed.
        source: table or equation of the audit paper (arXiv 2605.28896), where it has one.
        apart: which side of chance means something was found.
    """

    title: str
    unit: str
    formula: str
    chance: str
    interval: str
    file: str
    source: str = ""
    apart: Literal["above", "below", "either"] = "either"
