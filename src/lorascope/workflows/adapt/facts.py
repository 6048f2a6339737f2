"""What a report of an adapt study says that is not an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.runs import command_of, versions
from lorascope.workflows.adapt.fits import facts_of
from lorascope.workflows.adapt.state import Adapted
from lorascope.workflows.adapt.study import AdaptStudy

WORKFLOW = "adapt"


def facts(
    state: Adapted,
    study: AdaptStudy,
    found: dict[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Model, dictionaries, fits by experiment, gates, warnings and settings.

    Args:
        found: what else the stages found, by name: texts, times, steering.
        stages: what made each stage.
    """
    asked = state.asked
    fits = facts_of(state.folder, asked.fits)
    dictionaries = [state.facts_of(name) for name in asked.dictionaries]
    return {
        "workflow": WORKFLOW,
        "model": {"id": study.model, "revision": study.revision, "dtype": study.dtype},
        **found,
        "dictionaries": dictionaries,
        "reference": asked.reference.name,
        "experiments": {name: [cell.name for cell in cells] for name, cells in asked.cells.items()},
        "fits": fits,
        "gates": _gates(fits),
        "warnings": _warnings(study, dictionaries),
        "command": command_of(state.folder),
        "versions": versions(),
        "seconds": {name: one["seconds"] for name, one in stages.items()},
        "made_from": {name: one["key"] for name, one in stages.items()},
        "settings": study.plain(),
    }


def _gates(fits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bases = {one["base"] for one in fits}
    frozen: dict[tuple[str, str], set[str]] = {}
    for one in fits:
        for name, site in zip(one["dictionaries"], one["sites"], strict=True):
            frozen.setdefault((name, site), set()).add(one["frozen"][site])
    lines = []
    if fits:
        lines.append(
            {
                "gate": "base model frozen",
                "passed": len(bases) == 1,
                "detail": f"fingerprint {', '.join(sorted(b[:16] for b in bases))} before and "
                f"after each of {len(fits)} fits",
            }
        )
        lines.append(
            {
                "gate": "dictionaries frozen",
                "passed": all(len(marks) == 1 for marks in frozen.values()),
                "detail": f"{len(frozen)} dictionaries, each the same before and after every fit",
            }
        )
    lines.append(
        {
            "gate": "disjoint documents",
            "passed": True,
            "detail": "training and held-out documents are told apart by hash of their text",
        }
    )
    return lines


def _warnings(study: AdaptStudy, dictionaries: list[dict[str, Any]]) -> list[str]:
    found = []
    if len(study.seeds) < 2:
        found.append(
            "1 seed: intervals are over documents alone; give three seeds for what another fit "
            "would give"
        )
    found += [
        f"{one['name']}: its reconstruction is no better than predicting zero (relative error "
        f"{one['relative_error']:.2f}); does it belong to this model and site?"
        for one in dictionaries
        if one["relative_error"] >= 1
    ]
    return found
