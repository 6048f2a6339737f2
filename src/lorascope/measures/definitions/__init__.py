"""Every number's one definition; `docs/measures.md` and the report's footnotes are made from it."""

from __future__ import annotations

from dataclasses import replace

from lorascope.measures.definitions import (
    adapt,
    adapting,
    audit,
    behaviour,
    causes,
    check,
    comparison,
    evaluate,
    latent,
    pursuit,
    readable,
    reading,
    resemblance,
    seeds,
    weights,
    yardsticks,
)
from lorascope.measures.definitions.definition import Definition
from lorascope.measures.definitions.primary import PRIMARY
from lorascope.measures.definitions.rivals import rivals_of
from lorascope.results import Estimate

DEFINITIONS: dict[str, Definition] = {}


def define(measure: str, known: Definition) -> None:
    """Give a measure its definition; one in a file of its own calls this beside its function.

    Raises:
        ValueError: it has one already.
    """
    if measure in DEFINITIONS:
        raise ValueError(f"{measure} is defined twice")
    whole = known if known.rivals else known.beside(rivals_of(measure))
    DEFINITIONS[measure] = replace(whole, primary=PRIMARY.get(measure))


for _part in (
    audit,
    yardsticks,
    pursuit,
    causes,
    weights,
    seeds,
    comparison,
    latent,
    behaviour,
    readable,
    reading,
    adapt,
    adapting,
    check,
    resemblance,
    evaluate,
):
    for _measure, _known in _part.DEFINITIONS.items():
        define(_measure, _known)


def definition_of(measure: str) -> Definition:
    """The measure's definition; one that only names it where the instrument has none."""
    unknown = Definition(measure, "", "not defined by this version", "–", "–", "–")
    return DEFINITIONS.get(measure, unknown)


def declared(estimate: Estimate) -> Estimate:
    """The number with what its definition declares: its margin, and which nulls are rivals."""
    known = definition_of(estimate.measure)
    nulls = (
        replace(null, rival=null.rival or null.name in known.rivals) for null in estimate.nulls
    )
    margin = known.margin if estimate.margin is None else estimate.margin
    ordered = tuple(sorted(nulls, key=lambda null: not null.rival))
    return replace(estimate, nulls=ordered, margin=margin)


def definition(measure: str) -> Definition:
    """The definition of a measure; KeyError for a name that has none."""
    return DEFINITIONS[measure]


__all__ = ["DEFINITIONS", "Definition", "declared", "define", "definition", "definition_of"]
