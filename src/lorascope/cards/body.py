"""What an audit fills of a model card: what was learned, the numbers, how it was checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import lorascope
from lorascope.errors import InputError
from lorascope.measures.definitions import DEFINITIONS, definition_of
from lorascope.report.formatting import interval, number, verdict_words
from lorascope.report.result import Results
from lorascope.results import Estimate, Estimates
from lorascope.studies.audit.sections.opening import cautions, headline_numbers

BEGIN = "<!-- lorascope: from here to the end mark is written by `lorascope card` -->"
END = "<!-- lorascope: end -->"
_MARK = re.compile(r"<!-- lorascope: from here .*?-->.*?<!-- lorascope: end -->", re.DOTALL)
_ROWS = 40


def numbers(results: Results, name: str) -> list[Estimate]:
    """Headline numbers of an adapter that have a rival null, as means over seeds."""
    own = [e for e in headline_numbers(results) if e.key.adapter == name]
    return [e for e in Estimates(own).over_seeds() if math.isfinite(e.value)]


def block(results: Results, name: str) -> str:
    """The part between the marks, marks included."""
    lines = [
        BEGIN,
        "",
        "## What this adapter does",
        "",
        *_learned(results, name),
        "",
        "### Numbers",
        "",
        *_numbers(numbers(results, name)),
        "",
        "### How it was checked",
        "",
        *_checked(results, name),
        "",
        END,
    ]
    return "\n".join(lines)


def filled(body: str, part: str, file: object) -> str:
    """The card's text with the part in the place it had, or at the end.

    Raises:
        InputError: one of the two marks is there without the other, or there are several.
    """
    found = _MARK.findall(body)
    marks = (body.count("<!-- lorascope: from here "), body.count(END))
    if len(found) > 1 or marks not in ((0, 0), (1, 1)) or len(found) != marks[0]:
        raise InputError(
            f"{file}: the marks of lorascope card are not one pair: remove them and what this "
            "command wrote between them"
        )
    if found:
        return body.replace(found[0], part)
    apart = "" if not body else "\n" if body.endswith("\n") else "\n\n"
    return f"{body}{apart}{part}\n"


def _learned(results: Results, name: str) -> Iterator[str]:
    told = results.facts.get("read", {}).get(name)
    if told is None:
        yield "It was not read in this run: no words are claimed. `lorascope read` asks for them."
        return
    for sentence in told["sentences"]:
        yield f"- {_plain(sentence)}"


def _numbers(found: Sequence[Estimate]) -> Iterator[str]:
    if not found:
        yield "No headline number has a chance level in this run."
        return
    yield "Every number stands beside the level that it has where there is nothing to find."
    yield ""
    yield "| number | where | value | 95 % interval | chance | null | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for one in found[:_ROWS]:
        null = one.headline
        unit = f" {one.unit}" if one.unit else ""
        cells = [
            definition_of(one.measure).title,
            where(one),
            number(one.value) + unit,
            interval(*one.interval),
            "" if null is None else f"{number(null.level)} {interval(null.low, null.high)}",
            "" if null is None else null.name,
            verdict_words(one),
        ]
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
    if len(found) > _ROWS:
        yield ""
        yield f"{len(found) - _ROWS} more stand in the report."


def where(estimate: Estimate) -> str:
    """Site, dictionary and what else a number belongs to beside the adapter."""
    key = estimate.key
    parts = (key.site, key.dictionary, key.compared, key.module, key.setting)
    return ", ".join(part for part in parts if part)


def _checked(results: Results, name: str) -> Iterator[str]:
    facts = results.facts
    model = str(facts.get("model", {}).get("id", "its base model"))
    held = facts.get("tokens", {}).get("held_out", {})
    counted = (
        f", on {held['tokens']:,} held-out tokens of {held['documents']:,} documents"
        if {"tokens", "documents"} <= set(held)
        else ""
    )
    yield (
        f"Audited with lorascope {lorascope.__version__} on {_plain(model)}{counted}. Definitions "
        "of the numbers come with lorascope."
    )
    checks = [c for c in facts.get("sanity_checks", []) if c.get("adapter", name) == name]
    if checks:
        yield ""
        yield "| sanity check | passed | seen |"
        yield "|---|---|---|"
        for check in checks:
            passed = "yes" if check.get("passed", True) else "**no**"
            told = (_cell(check.get(key, "")) for key in ("check", "detail"))
            yield "| {} | {passed} | {} |".format(*told, passed=passed)
    found = cautions(results)
    if found:
        yield ""
        yield "Before relying on this:"
        yield ""
        yield from (f"- {_plain(line)}" for line in found)


def metrics(found: Sequence[Estimate]) -> list[dict[str, Any]]:
    """The numbers as a model index has them, each with its chance level among its arguments."""
    result = []
    for one in found[:_ROWS]:
        null = one.headline
        given: dict[str, Any] = {"lorascope": lorascope.__version__, "unit": one.unit}
        given |= {"where": where(one), "verdict": one.verdict}
        if not math.isnan(one.interval[0]):
            given["interval"] = [_short(bound) for bound in one.interval]
        if null is not None:
            given |= {"null": null.name, "chance": _short(null.level)}
            given["chance_interval"] = [_short(null.low), _short(null.high)]
        title = DEFINITIONS[one.measure].title if one.measure in DEFINITIONS else one.measure
        place = where(one)
        result.append(
            {
                "type": one.measure,
                "name": f"{title}, {place}" if place else title,
                "value": _short(one.value),
                "args": {key: value for key, value in given.items() if value not in ("", None)},
            }
        )
    return result


def _short(value: float) -> float | str:
    """Six digits; YAML of the hub has no infinity."""
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def _plain(text: object) -> str:
    """One line in which nothing is markup."""
    line = " ".join(str(text).split())
    for mark in "\\`*_[]":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cell(text: object) -> str:
    return _plain(text).replace("|", "\\|")
