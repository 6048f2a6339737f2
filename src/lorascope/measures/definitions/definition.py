"""What a definition holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from lorascope.measures.definitions.rivals import Rivals
from lorascope.results.labels import Of

# Differences of this size matter to nobody's conclusion, unless a definition says otherwise.
MARGINS: Final = {
    "nats/token": 0.02,
    "share": 0.05,
    "ratio": 0.05,
    "cosine": 0.02,
    "degrees": 2.0,
    "CKA": 0.02,
    "correlation": 0.1,
}


@dataclass(frozen=True)
class Definition:
    """What a number is.

    Attributes:
        title: what tables and figures call it.
        unit: unit of the number.
        formula: how it is computed.
        chance: its chance levels, rivals first, of which one is the headline null. A run that has
            none of them shows the first reference in their place, by which nothing is claimed.
        interval: what the 95 % interval varies.
        file: where it is computed.
        source: table or equation of the audit paper (arXiv 2605.28896), where it has one.
        apart: which side of chance means something was found.
        rivals: names of the nulls that stand for rival explanations: a verdict must leave each.
        rival: the rival explanation in words.
        margin: differences up to this size count as none, in `unit`; by default what is usual for
            the unit; 0 where none is too small to count.
        sampled: what more of would settle the number, where that can be had: "tokens", "prompts".
        primary: of which dictionaries the number is the one that answers its question, declared in
            advance; None where it answers none.
    """

    title: str
    unit: str
    formula: str
    chance: str
    interval: str
    file: str
    source: str = ""
    apart: Literal["above", "below", "either"] = "either"
    rivals: tuple[str, ...] = ()
    rival: str = ""
    margin: float | None = None
    sampled: str = ""
    primary: Of | None = None

    def __post_init__(self) -> None:
        if self.margin is None:
            object.__setattr__(self, "margin", MARGINS.get(self.unit))

    def beside(self, rivals: Rivals) -> Definition:
        """The definition with rivals, their explanation, and chance levels that begin with them."""
        chance = rivals.before(self.chance)
        return replace(self, rivals=rivals.nulls, rival=rivals.explanation, chance=chance)
