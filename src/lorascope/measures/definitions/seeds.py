"""Definitions of numbers over several seeds, and of the ablation's."""

from __future__ import annotations

from dataclasses import replace

from lorascope.measures.definitions import audit
from lorascope.measures.definitions.definition import Definition

DEFINITIONS: dict[str, Definition] = {
    f"ablation.{key}": replace(
        audit.DEFINITIONS[key],
        title=f"{audit.DEFINITIONS[key].title}, ablation",
        source="table 12",
    )
    for key in ("relative_error", "relative_error.frobenius", "density", "dead_share")
}
DEFINITIONS["variance.condition_share"] = Definition(
    "Share of variance between conditions",
    "share",
    "intraclass correlation (F − 1) / (F + R − 1), F the ratio of mean squares between and within "
    "conditions (group of adapters × site), R replicates of each: adapters' seeds, each the mean "
    "over its dictionaries, or the dictionaries' seeds of a single adapter; the rest lies between "
    "seeds. The setting names the measure",
    "no difference between conditions: F distribution with (C − 1, C (R − 1)) degrees of freedom",
    "from the F distribution (Searle 1971); replicates taken as independent",
    "measures/seeds.py",
    "",
    "above",
)
