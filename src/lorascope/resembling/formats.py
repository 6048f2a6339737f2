"""A resemblance as data: JSON of a versioned schema."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import lorascope
from lorascope.results import Estimate

if TYPE_CHECKING:
    from lorascope.resembling.resemble import Resemblance

# Raised where a field goes or changes its meaning; new fields may come within a version.
VERSION = 1


def schema() -> dict[str, Any]:
    """The JSON schema of what `plain` returns, as it ships with the package."""
    place = files("lorascope.resembling").joinpath(f"schemas/resemble-{VERSION}.json")
    found: dict[str, Any] = json.loads(place.read_text("utf-8"))
    return found


def plain(found: Resemblance) -> dict[str, Any]:
    """Everything of a resemblance as plain data; what is no number is None."""
    from lorascope.resembling.resemble import MEASURES, other

    return {
        "schema": f"lorascope-resemble-{VERSION}",
        "lorascope": lorascope.__version__,
        "model": found.model,
        "documents": found.documents,
        "tokens": found.tokens,
        "draws": found.settings.draws,
        "adapters": [
            {
                "name": one.name,
                "path": one.path,
                "rank": one.rank,
                "modules": len(one.modules),
                "left_out": list(one.left_out),
            }
            for one in found.adapters
        ],
        "pairs": [_pair(one) for one in found.estimates],
        "neighbours": {
            name: [other(one, name) for one in found.neighbours(name)] for name in found.names
        },
        "alike": [list(group) for group in found.settings.alike],
        "upper": {measure: _known(found.upper(measure)) for measure in MEASURES},
        "order": [found.names[i] for i in found.clusters.order],
        "merges": [list(merge) for merge in found.clusters.merges],
    }


def _pair(estimate: Estimate) -> dict[str, Any]:
    null = estimate.headline
    assert null is not None
    assert null.p is not None
    return {
        "measure": estimate.measure,
        "first": estimate.key.adapter,
        "second": estimate.key.compared,
        "value": _known(estimate.value),
        "low": _known(estimate.interval[0]),
        "high": _known(estimate.interval[1]),
        "unit": estimate.unit,
        "chance": {
            "null": null.name,
            "level": _known(null.level),
            "low": _known(null.low),
            "high": _known(null.high),
            "p": _known(null.p),
            "draws": null.draws,
        },
        "verdict": estimate.verdict,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
