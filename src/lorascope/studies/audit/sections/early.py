"""The page while an audit is still running, made again as stages finish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.models.adapted import BASE
from lorascope.reading.result import MARK, Read
from lorascope.report.formatting import number, plural, shown_passage
from lorascope.report.rendering import asset, rendered
from lorascope.runs import read_json, write_atomically
from lorascope.studies.audit.sections.reading import sentences

GLANCE = "glance/glance.json"


def write_early(run: Path, finished: int, total: int) -> Path | None:
    """Write `report/index.html` from what is there; None before anything is.

    Args:
        finished, total: stages.
    """
    if not (run / GLANCE).is_file():
        return None
    page = run / "report" / "index.html"
    page.parent.mkdir(exist_ok=True)
    write_atomically(page, render_early(run, finished, total))
    return page


def render_early(run: Path, finished: int, total: int) -> str:
    """The page's HTML; it loads itself anew every few seconds."""
    seen = read_json(run / GLANCE)
    names = list(seen["adapters"])
    readings = {}
    for name in names:
        if (run / "read" / name / MARK).is_file():
            readings[name] = sentences(Read.load(run / "read" / name))
    samples = [
        {
            "prompt": _shown(one["prompt"]),
            "rows": [
                ("before" if variant == BASE else variant, _shown(text))
                for variant, text in one["texts"].items()
            ],
        }
        for one in seen["samples"]
    ]
    return rendered(
        "early.html.j2",
        model=seen["model"],
        names=names,
        adapters={name: told(one) for name, one in seen["adapters"].items()},
        readings=readings,
        samples=samples,
        finished=finished,
        total=total,
        style=asset("style.css"),
    )


def told(one: Mapping[str, Any]) -> list[str]:
    """What an adapter is, in sentences: rank and size, and where its norm sits."""
    said = [f"{what} {one[what]:g}" for what in ("rank", "alpha") if one.get(what) is not None]
    said.append(f"{one['parameters']:,} parameters")
    if one["modules"]:
        said.append(f"on {plural(one['modules'], 'module')}")
    lines = [f"{', '.join(said)}."]
    lines[0] = lines[0][:1].upper() + lines[0][1:]
    if one["norm"] is not None:
        lines.append(f"Its update has the norm {number(one['norm'])}.")
        for what, parts in (("By place", one["places"]), ("Largest modules", one["leading"])):
            shares = ", ".join(f"{name} {100 * part:.0f} %" for name, part in parts.items())
            lines += [f"{what}, squared: {shares}."] if shares else []
    return lines


def _shown(text: str) -> str:
    return "".join(shown_passage([text]))
