"""Adapt studies of several models beside each other: `lorascope compare RUN RUN ...`.

1. Open the studies' results; refuse what is no finished adapt study.
2. Take over every number of the fits around the reference and over dictionaries and ranks, one a
   condition; add how far each model's share is from the first's.
3. Write estimates and facts, and the report made from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorascope import report
from lorascope.errors import InputError
from lorascope.measures.adapting import share_difference
from lorascope.report.result import read_results, write_estimates
from lorascope.results import Estimate
from lorascope.runs import versions, write_atomically, write_json
from lorascope.studies.adapt.finished import in_studies
from lorascope.studies.adapt.sections.model_comparison import MEASURES
from lorascope.studies.adapt.sections.results import SHARE, AdaptResults, FitCondition
from lorascope.workflows.comparison_folders import MARK, labels, require_free

MODELS = "adapt models"
# What makes shares of two studies unequal in effort, or measured on unequal grounds.
_EFFORT = ("texts", "context", "measure_tokens", "fit")


@dataclass(frozen=True)
class _Study:
    """One finished study, what it is called, and its LoRA fit around its reference."""

    name: str
    found: AdaptResults
    main: FitCondition


@dataclass(frozen=True)
class Models:
    """What was found.

    Attributes:
        estimates: every number, its key the model's name.
        facts: the models, their studies and what to beware of.
        report: path of the page.
    """

    estimates: list[Estimate]
    facts: dict[str, Any]
    report: Path


def compare_models(runs: Sequence[Path], out: Path | None, command: str = "") -> Models:
    """Hold adapt studies against each other and write the findings into `out`.

    Args:
        out: a new folder or an earlier comparison's; `runs/compare-RUN-RUN` by default.

    Raises:
        InputError: fewer than two different runs, one is not finished or has no LoRA fit around its
            reference, or `out` holds something else.
    """
    in_studies(runs)
    folder = out or Path("runs") / ("compare-" + "-".join(run.resolve().name for run in runs))
    require_free(folder)
    studies = _opened(runs)
    estimates = [one for study in studies for one in _numbers(study)]
    estimates += _differences(studies)
    facts = {
        "workflow": MODELS,
        "models": [_facts(study) for study in studies],
        "warnings": [line for other in studies[1:] for line in _unlike(studies[0], other)],
        "command": command,
        "versions": versions(),
        "settings": {study.name: study.found.facts.get("settings", {}) for study in studies},
    }
    folder.mkdir(parents=True, exist_ok=True)
    mark = {"runs": [str(run) for run in runs], "versions": versions(), "command": command}
    write_json(folder / MARK, mark)
    write_estimates(estimates, folder / "results")
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    write_atomically(folder / "results" / "facts.json", text + "\n")
    return Models(estimates, facts, report.build(folder))


def _opened(runs: Sequence[Path]) -> list[_Study]:
    opened: list[tuple[Path, AdaptResults, FitCondition]] = []
    for run in runs:
        found = AdaptResults(read_results(run))
        if found.main is None:
            raise InputError(
                f"{run}: no LoRA was fitted around the reference dictionary; add lora to its "
                "experiments"
            )
        opened.append((run, found, found.main))
    names = labels(*((run, str(found.facts["model"]["id"])) for run, found, _ in opened))
    return [_Study(name, found, main) for name, (_, found, main) in zip(names, opened, strict=True)]


def _conditions(found: AdaptResults) -> list[FitCondition]:
    every = [c for name in ("reference", "baselines", "scaling") for c in found.conditions(name)]
    return list(dict.fromkeys(every))


def _numbers(study: _Study) -> list[Estimate]:
    """One number a condition and measure."""
    return [
        one.at(replace(one.key, rank=condition.rank, seed=None, model=study.name))
        for condition in _conditions(study.found)
        for measure in MEASURES
        if (one := study.found.number(condition, measure)) is not None
    ]


def _differences(studies: Sequence[_Study]) -> list[Estimate]:
    """Of each model's share to the first's, for everything fitted around both references."""
    first = _shares(studies[0])
    return [
        share_difference(first[fitted], one, replace(one.key, seed=None, model=study.name))
        for study in studies[1:]
        for fitted, one in _shares(study).items()
        if fitted in first and _has_interval(first[fitted]) and _has_interval(one)
    ]


def _has_interval(share: Estimate) -> bool:
    """Without one nothing can be said of a difference."""
    low, high = share.interval
    return low < high


def _shares(study: _Study) -> dict[str, Estimate]:
    found = study.found
    return {
        condition.fit: one
        for condition in _conditions(found)
        if condition.around == found.reference
        and (one := found.number(condition, SHARE)) is not None
    }


def _facts(study: _Study) -> dict[str, Any]:
    found = study.found
    held_out = found.facts.get("texts", {}).get("held_out", {})
    every = [study.main, *_conditions(found)]
    scaling = [condition.fit for condition in found.conditions("scaling")]
    return {
        "name": study.name,
        "run": str(found.results.run),
        "documents": held_out.get("documents"),
        "tokens": held_out.get("tokens"),
        "reference": found.reference,
        "main": study.main.fit,
        "fits": {condition.fit: condition.fitted for condition in every},
        "scaling": list(dict.fromkeys([study.main.fit, *scaling])),
        "seeds": len(found.fits(study.main)),
        "dictionaries": found.dictionaries,
    }


def _unlike(first: _Study, other: _Study) -> list[str]:
    """Settings in which two studies differ so that their shares are not of equal effort."""
    ours, theirs = (_flat(s.found.facts.get("settings", {}), _EFFORT) for s in (first, other))
    return [
        f"{other.name} was not studied as {first.name} was: {name} is {theirs.get(name)}, not "
        f"{ours.get(name)}"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]


def _flat(
    settings: Mapping[str, Any], names: Sequence[str] = (), before: str = ""
) -> dict[str, Any]:
    """{dotted name: setting}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if names and name not in names:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, before=f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat
