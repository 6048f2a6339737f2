"""Every number's one definition; `docs/measures.md` and the report's footnotes are made from it."""

from __future__ import annotations

from lorascope.measures.definitions import (
    adapt,
    audit,
    behaviour,
    causes,
    comparison,
    latent,
    pursuit,
    seeds,
    weights,
)
from lorascope.measures.definitions.definition import Definition

DEFINITIONS: dict[str, Definition] = {
    **audit.DEFINITIONS,
    **pursuit.DEFINITIONS,
    **causes.DEFINITIONS,
    **weights.DEFINITIONS,
    **seeds.DEFINITIONS,
    **comparison.DEFINITIONS,
    **latent.DEFINITIONS,
    **behaviour.DEFINITIONS,
    **adapt.DEFINITIONS,
}


def definition(measure: str) -> Definition:
    """The definition of a measure; KeyError for a name that has none."""
    return DEFINITIONS[measure]


__all__ = ["DEFINITIONS", "Definition", "definition"]
