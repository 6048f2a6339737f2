"""A run's results for machines: JSON of a versioned schema, and digests in the manifest."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from lorascope.report.result import Results
from lorascope.results import Estimate, Null
from lorascope.runs import read_json, write_atomically, write_json

# Raised where a field goes or changes its meaning; new fields may come within a version.
VERSION = 1
FILE = "results.json"


def schema() -> dict[str, Any]:
    """The JSON schema of what `plain` returns, as it ships with the package."""
    place = files("lorascope.report").joinpath(f"schemas/results-{VERSION}.json")
    found: dict[str, Any] = json.loads(place.read_text("utf-8"))
    return found


def plain(results: Results) -> dict[str, Any]:
    """Every number with its chance levels, and what it was made with; what is no number is None."""
    facts = results.facts
    checks = [
        {
            "check": str(one.get("check", "")),
            "passed": bool(one.get("passed", True)),
            "detail": str(one.get("detail", "")),
        }
        for one in facts.get("sanity_checks", [])
    ]
    return {
        "schema": f"lorascope-results-{VERSION}",
        "lorascope": str(facts.get("versions", {}).get("lorascope", "")),
        "workflow": str(facts.get("workflow", "audit")),
        "model": facts.get("model", {}).get("id") if isinstance(facts.get("model"), dict) else None,
        "adapters": [
            {"name": str(one["name"]), "rank": one.get("rank"), "sha256": one.get("sha256") or None}
            for one in facts.get("adapters", [])
        ],
        "sanity_checks": checks,
        "warnings": [str(warning) for warning in facts.get("warnings", [])],
        "estimates": [_number(one) for one in results.estimates],
    }


def _number(estimate: Estimate) -> dict[str, Any]:
    key = estimate.key
    return {
        "measure": estimate.measure,
        "adapter": key.adapter or None,
        "rank": key.rank,
        "site": key.site or None,
        "seed": key.seed,
        "dictionary": key.dictionary or None,
        "key": str(key),
        "draw": key.draw,
        "value": _known(estimate.value),
        "low": _known(estimate.interval[0]),
        "high": _known(estimate.interval[1]),
        "n": estimate.n,
        "unit": estimate.unit,
        "nulls": [_null(estimate, null) for null in estimate.nulls],
        "verdict": estimate.verdict,
    }


def _null(estimate: Estimate, null: Null) -> dict[str, Any]:
    return {
        "name": null.name,
        "rival": null.rival,
        "level": _known(null.level),
        "low": _known(null.low),
        "high": _known(null.high),
        "p": _known(estimate.p(null)),
        "draws": null.draws,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def write(results: Results, page: Path) -> Path:
    """Write results.json beside the page, and both files' digests into the run's manifest.

    Returns:
        the JSON's path.
    """
    file = page.parent / FILE
    write_atomically(file, json.dumps(plain(results), ensure_ascii=False, allow_nan=False) + "\n")
    manifest = results.run / "manifest.json"
    if manifest.is_file():
        digests = {
            one.relative_to(results.run).as_posix(): hashlib.sha256(one.read_bytes()).hexdigest()
            for one in (page, file)
        }
        known = {**read_json(manifest), "report": digests}
        write_json(manifest, known)
    return file
