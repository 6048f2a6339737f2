"""What a report of an adapt study says that is not an estimate."""

from __future__ import annotations

from typing import Any

from lorascope.runs import versions
from lorascope.workflows.adapt.dictionaries import Standing
from lorascope.workflows.adapt.fits import facts_of
from lorascope.workflows.adapt.state import Adapted
from lorascope.workflows.left_out import left_out, of_texts

WORKFLOW = "adapt"


def facts(
    state: Adapted, found: dict[str, Any], standing: Standing, command: str
) -> dict[str, Any]:
    """Model, dictionaries, fits by experiment, gates, warnings and settings.

    Args:
        found: what else the stages found, by name: texts, times, steering.
    """
    study, asked = state.study, state.asked
    fits = facts_of(state.run, asked.fits)
    return {
        "workflow": WORKFLOW,
        "model": {"id": study.model, "revision": study.revision, "dtype": study.dtype},
        **found,
        "dictionaries": list(standing.facts.values()),
        "reference": asked.reference.name,
        "experiments": {name: [cell.name for cell in cells] for name, cells in asked.cells.items()},
        "fits": fits,
        "gates": _gates(fits),
        "left_out": _left_out(found.get("texts", {})),
        "warnings": [*found.get("texts", {}).get("warnings", []), *_warnings(state, standing)],
        "command": command,
        "versions": versions(),
        "seconds": state.run.seconds(),
        "settings": study.plain(),
    }


def _left_out(texts: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the texts' records, then of the documents held out, of which the windows asked for are
    measured on."""
    if not texts:
        return []
    used, of = texts["held_out"]["documents"], texts.get("held_out_documents")
    found = [of_texts(texts.get("records", {}))]
    if of is not None:
        found.append(
            left_out("held-out documents", used, {"beyond measure_tokens": max(0, of - used)})
        )
    return found


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


def _warnings(state: Adapted, standing: Standing) -> list[str]:
    found = []
    if len(state.study.seeds) < 2:
        found.append(
            "1 seed: intervals are over documents alone; give three seeds for what another fit "
            "would give"
        )
    found += [
        f"{one['name']}: its reconstruction is no better than predicting zero (relative error "
        f"{one['relative_error']:.2f}); does it belong to this model and site?"
        for one in standing.facts.values()
        if one["relative_error"] >= 1
    ]
    return found
