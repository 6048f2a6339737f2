"""Tables of `scripts/real_models.py`: what was found beside null adapters, planned beside taken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lorascope.report.formatting import interval, number, verdict_words
from lorascope.report.pooled import conditions
from lorascope.report.result import Results, read_results
from lorascope.results import Estimate
from lorascope.results.labels import DELTA_VS_BASE, Of
from lorascope.results.null_names import ADAPTER

# Parts of a plan, and the stages whose time they foresee by the first part of their names.
PARTS = {
    "first look, matching, sanity checks, capture": (
        ("first look", "matching", "sanity checks", "capture"),
        ("glance", "matching", "sanity_checks", "activations"),
    ),
    "dictionaries": (("dictionary training",), ("dictionaries",)),
    "measures, pursuit": (
        ("measures", "pursuit"),
        ("yardsticks", "recovered", "measures", "massive", "written", "drift"),
    ),
    "effects": (("effects",), ("effects", "features")),
    "reading": (("reading",), ("read", "carriers")),
    "weights": (("weights",), ("weights",)),
}
CLAIMS: tuple[tuple[str, str, Of | None], ...] = (
    ("mean max cosine", "max_cosine.mean", DELTA_VS_BASE),
    ("share of directions below 0.3", "max_cosine.below_0.3", DELTA_VS_BASE),
    ("weakly aligned", "weakly_aligned", None),
    ("improvement", "improvement", None),
    ("delta norm, relative", "delta_norm.relative", None),
)


def figures(folder: Path) -> str:
    """All tables of what lies in a folder of `real_models.py`, as Markdown."""
    taken = json.loads((folder / "taken.json").read_text("utf-8"))
    parts = ["# Figures\n"]
    for run in sorted(folder.glob("*/audit-*/run")):
        name = run.parent.relative_to(folder).as_posix()
        if (run / "report" / "index.html").is_file() and name in taken:
            parts.append(f"## {name}\n")
            parts.append(_table(("", "adapter, site", "value", "null adapters", "verdict"), run))
            parts.append(_planned(run, taken[name]))
    parts.append("## Time and memory\n")
    parts.append(_rows(("command", "wall", "processor", "most memory"), list(_taken(taken))))
    return "\n".join(parts)


def _table(heads: Sequence[str], run: Path) -> str:
    results = read_results(run)
    return _rows(heads, list(_claims(results)))


def _claims(results: Results) -> Iterator[tuple[str, ...]]:
    for title, measure, of in CLAIMS:
        for found in conditions(results, measure, of):
            where = f"{found.key.adapter}, {found.key.site}"
            value = f"{number(found.value)} {interval(*found.interval)}".strip()
            yield title, where, value, _null(found), verdict_words(found)


def _null(found: Estimate) -> str:
    own = next((null for null in found.nulls if null.name == ADAPTER), None)
    if own is None:
        return "–"
    return f"{number(own.level)} {interval(own.low, own.high)}".strip()


def _planned(run: Path, taken: dict[str, Any]) -> str:
    plan = json.loads((run.parent / "plan.json").read_text("utf-8"))
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    rows = []
    for title, (planned, made) in PARTS.items():
        foreseen = sum(plan["seconds"].get(part, 0.0) for part in planned)
        spent = sum(one["cpu_seconds"] for name, one in stages.items() if _first(name) in made)
        rows.append((title, f"{foreseen:.0f} s", f"{spent:.0f} s", _factor(foreseen, spent)))
    # Of all stages: a run that was stopped and went on has taken more than its last command.
    whole = sum(plan["seconds"].values())
    spent = sum(one["cpu_seconds"] for one in stages.values())
    rows.append(("all", f"{whole:.0f} s", f"{spent:.0f} s", _factor(whole, spent)))
    memory, held = plan["memory"], taken["peak_memory"]
    rows.append(("memory", _size(memory), _size(held), _factor(memory, held)))
    disk = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    rows.append(("disk", _size(plan["disk"]), _size(disk), _factor(plan["disk"], disk)))
    return _rows(("", "planned", "taken", "taken / planned"), rows)


def _first(stage: str) -> str:
    return stage.partition("/")[0]


def _factor(planned: float, taken: float) -> str:
    return f"{taken / planned:.2f}" if planned else "–"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _taken(taken: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    for name, one in taken.items():
        times = (f"{one[which] / 60:.1f} min" for which in ("seconds", "cpu_seconds"))
        yield name, *times, _size(one["peak_memory"])


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
