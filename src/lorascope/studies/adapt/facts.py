"""What the report of an adapt study says beside its estimates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lorascope.runs import command_of, versions
from lorascope.studies.adapt.fits import facts_of
from lorascope.studies.adapt.state import Adapted
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.adapt.times import TIMES
from lorascope.workflows.left_out import left_out, of_texts

WORKFLOW = "adapt"
# Records say to the second when a stage was finished.
_SECONDS = 2.0


def facts(
    state: Adapted,
    study: AdaptStudy,
    found: dict[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Model, dictionaries, fits by experiment, sanity checks, warnings and settings.

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
        "sanity_checks": _checks(fits),
        "left_out": _left_out(found.get("texts", {})),
        "warnings": [
            *found.get("texts", {}).get("warnings", []),
            *_warnings(study, dictionaries),
            *disturbed(stages),
        ],
        "command": command_of(state.folder),
        "versions": versions(),
        "seconds": {name: one["seconds"] for name, one in stages.items()},
        "made_from": {name: one["key"] for name, one in stages.items()},
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


def _checks(fits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bases = {one["base"] for one in fits}
    frozen: dict[tuple[str, str], set[str]] = {}
    for one in fits:
        for name, site in zip(one["dictionaries"], one["sites"], strict=True):
            frozen.setdefault((name, site), set()).add(one["frozen"][site])
    lines = []
    if fits:
        lines.append(
            {
                "check": "base model frozen",
                "passed": len(bases) == 1,
                "detail": f"fingerprint {', '.join(sorted(b[:16] for b in bases))} before and "
                f"after each of {len(fits)} fits",
            }
        )
        lines.append(
            {
                "check": "dictionaries frozen",
                "passed": all(len(marks) == 1 for marks in frozen.values()),
                "detail": f"{len(frozen)} dictionaries, each the same before and after every fit",
            }
        )
    lines.append(
        {
            "check": "disjoint documents",
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


def disturbed(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning where other stages were made while seconds were taken: these are then too many.

    Args:
        stages: what made each stage.
    """
    spans = {name: (one["host"], *_span(one)) for name, one in stages.items()}
    slowed = {
        name
        for name, (host, begun, ended) in spans.items()
        if name.startswith(f"{TIMES}/")
        for other, (elsewhere, first, last) in spans.items()
        if other != name and elsewhere == host and min(ended, last) - max(begun, first) > _SECONDS
    }
    if not slowed:
        return []
    return [
        "loss against training time: other stages were made on the same machine at the same time "
        f"as {', '.join(sorted(slowed))}, which slows them; for times that compare, remove "
        f"{TIMES} and results from the run folder and run the study again without --workers"
    ]


def _span(record: Mapping[str, Any]) -> tuple[float, float]:
    """When a stage was begun and finished, seconds."""
    ended = datetime.fromisoformat(record["finished"]).timestamp()
    return ended - record["seconds"], ended
