"""Two finished evaluations held against each other: `lorascope compare RUN RUN`.

1. Open both runs' results; pair their subjects, and of these every number that both have.
2. An evaluation that was made otherwise on one side is left out, and said so; where nothing is
   left, the comparison is refused.
3. Take each number on the units of both, and second less first; write estimates, facts, report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lorascope import report
from lorascope.errors import InputError
from lorascope.measures.definitions import definition_of
from lorascope.report.result import read_results, write_estimates
from lorascope.results import Estimate, Key
from lorascope.runs import read_json, versions, write_atomically, write_json
from lorascope.studies.evaluate.comparison_page import EVALUATIONS_COMPARED
from lorascope.studies.evaluate.differences import Compared, paired, place_of, unpaired
from lorascope.studies.evaluate.finished import Side, in_evaluations
from lorascope.studies.evaluate.sections import section_of
from lorascope.studies.evaluate.settings import EVALUATIONS
from lorascope.studies.evaluate.units import FILE, Units, read_units
from lorascope.workflows.comparison_folders import MARK, labels, require_free

# Settings of an evaluation that say how much is taken, not what a number is.
_HOW_MUCH = {
    "core": {"tokens", "training_tokens"},
    "probing": {"sets", "limit", "k"},
    "tpp": {"n"},
    "scr": {"n"},
    "autointerp": {"latents"},
    "disentangling": {"k", "source"},
    "benchmarks": {"tasks", "limit", "batch", "include"},
}
# Numbers whose units are no other dictionary's: latents.
_OF_LATENTS = ("evaluate.dead_share", "evaluate.detection", "evaluate.fuzzing")
_RECOVERED = ("evaluate.ce_recovered", "evaluate.kl_recovered")
MEAN_ABLATION = "mean ablation"
# Numbers of the model with everything in its place; the others are of one site.
_WHOLE = ("evaluate.loss", "evaluate.kl", *_RECOVERED, "evaluate.benchmark")


@dataclass(frozen=True)
class EvaluationsCompared:
    """What was found.

    Attributes:
        estimates: every difference, second less first.
        facts: the runs, both sides of every difference by its key, and what to beware of.
        report: path of the page.
    """

    estimates: list[Estimate]
    facts: dict[str, Any]
    report: Path


@dataclass(frozen=True)
class _Opened:
    """One side: its name in the comparison, and its run."""

    name: str
    side: Side

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the run's study."""
        found: Mapping[str, Any] = self.side.facts["settings"]
        return found

    @property
    def taken(self) -> list[str]:
        """The evaluations of this subject."""
        made = self.side.facts["made_from"]
        return [name for name in EVALUATIONS if f"{name}/{self.side.subject}" in made]

    def units(self, evaluation: str) -> list[Units]:
        """What one evaluation's numbers are made of."""
        folder = self.side.folder / evaluation / self.side.subject
        if not (folder / FILE).is_file():
            raise InputError(
                f"{self.side.folder}: evaluated by a version that kept no {FILE}; run lorascope "
                "evaluate again with the same --out"
            )
        return read_units(folder)


def compare_evaluations(
    first: str, second: str, out: Path | None, command: str = ""
) -> EvaluationsCompared:
    """Hold two evaluations against each other and write the findings into `out`.

    Args:
        first, second: RUN, RUN:SUBJECT, or :SUBJECT of the first one's run; without names subjects
            of one name are paired.
        out: a new folder or an earlier comparison's; `runs/compare-RUN-RUN` by default.

    Raises:
        InputError: a run is not finished, they have no number on the same units, or `out` holds
            something else.
    """
    pairs = in_evaluations(first, second)
    folders = dict.fromkeys(side.folder for pair in pairs for side in pair)
    name = "-".join(folder.resolve().name for folder in folders)
    folder = out or Path("runs") / f"compare-{name}"
    require_free(folder)
    found: list[Compared] = []
    said: list[str] = []
    sides = []
    for pair in pairs:
        named = labels(*((side.folder, side.subject) for side in pair))
        opened = [_Opened(*one) for one in zip(named, pair, strict=True)]
        sides.append([_told(one) for one in opened])
        found += _compared(opened[0], opened[1], said)
    if not found:
        raise InputError(f"{first} and {second} cannot be compared: {'; '.join(said)}")
    facts = {
        "workflow": EVALUATIONS_COMPARED,
        "pairs": sides,
        "sides": {str(one.estimate.key): _record(one) for one in found},
        "warnings": list(dict.fromkeys(said)),
        "command": command,
        "versions": versions(),
        "settings": {str(one): _plain(one) for one in folders},
    }
    estimates = [one.estimate for one in found]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"runs": [first, second], "versions": versions(), "command": command})
    write_estimates(estimates, folder / "results")
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    write_atomically(folder / "results" / "facts.json", text + "\n")
    return EvaluationsCompared(estimates, facts, report.build(folder))


def _plain(folder: Path) -> Any:
    return read_json(folder / "results" / "facts.json")["settings"]


def _told(one: _Opened) -> dict[str, Any]:
    facts = one.side.facts
    return {
        "name": one.name,
        "run": str(one.side.folder),
        "subject": one.side.subject,
        "model": facts["model"]["id"],
        **facts["subjects"][one.side.subject],
    }


def _record(one: Compared) -> dict[str, Any]:
    record = asdict(one)
    del record["estimate"]
    return record


def _compared(first: _Opened, second: _Opened, said: list[str]) -> list[Compared]:
    """Every number of both sides; `said` gets a line for what is left out or to beware of."""
    found: list[Compared] = []
    taken = [one.taken for one in (first, second)]
    single = [name for name in EVALUATIONS if (name in taken[0]) != (name in taken[1])]
    if single:
        said.append(f"{', '.join(single)}: of one of {first.name} and {second.name} only")
    models = [one.side.facts["model"] for one in (first, second)]
    if models[0] != models[1]:
        said.append(
            f"{first.name} is of {models[0]['id']} and {second.name} of {models[1]['id']}, or of "
            "another revision or type: differences are of the models too"
        )
    for evaluation in [name for name in taken[0] if name in taken[1]]:
        unlike = _unlike(first.settings, second.settings, evaluation)
        if unlike:
            said.append(f"{evaluation} of {second.name} was made otherwise: {unlike}; left out")
            continue
        numbers = list(_numbers(first, second, evaluation, said))
        if not numbers and first.units(evaluation) and second.units(evaluation):
            said.append(
                f"{evaluation}: {first.name} and {second.name} have too few documents, texts or "
                "other units in common; evaluate both on the same"
            )
        found += numbers
    return found


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any], evaluation: str) -> str:
    """Settings in which two runs differ so that a number is not the same number."""
    sections = [dict(one[evaluation]) for one in (first, second)]
    for section, settings in zip(sections, (first, second), strict=True):
        for name in _HOW_MUCH.get(evaluation, ()):
            section.pop(name, None)
        if evaluation not in ("core", "benchmarks"):
            section["seed"] = settings["seed"]
    return ", ".join(
        f"{evaluation}.{name} is {sections[1].get(name)}, not {value}"
        for name, value in sections[0].items()
        if sections[1].get(name) != value
    )


def _numbers(
    first: _Opened, second: _Opened, evaluation: str, said: list[str]
) -> Iterator[Compared]:
    ours, theirs = first.units(evaluation), second.units(evaluation)
    several = any(
        len({one.key.site for one in side if one.measure not in _WHOLE}) > 1
        for side in (ours, theirs)
    )
    known = {_place(one.measure, one.key, several): one for one in ours}
    other_reference, whole = _kind(first) != _kind(second), evaluation == "autointerp"
    for other in theirs:
        own = known.get(_place(other.measure, other.key, several))
        if own is None:
            continue
        if other_reference and other.measure in _RECOVERED and other.key.adapter:
            said.append(
                f"{second.name}: with the adapter, what is recovered has another reference than "
                f"that of {first.name}; left out"
            )
            continue
        if other.key.setting == MEAN_ABLATION and _learned(first) != _learned(second):
            said.append(
                f"{second.name}: the mean that ablation puts in is of other texts than that of "
                f"{first.name} (texts, core.training_tokens); {other.measure} of it left out"
            )
            continue
        key = _key(first, second, other.key, other.measure)
        found = paired(own, other, key, definition_of(other.measure).unit)
        if found is not None:
            # Shares of latents depend on the rows that they are read on: all or none.
            whole = found.units == (found.shared, found.shared)
            yield found
    if whole:
        yield from _of_latents(first, second, evaluation, several)


def _of_latents(
    first: _Opened, second: _Opened, evaluation: str, several: bool
) -> Iterator[Compared]:
    """Shares of latents, and how well explanations of them do: no two dictionaries share any."""
    known, theirs = (
        {
            _place(e.measure, e.key, several): e
            for e in read_results(one.side.folder).numbers
            if e.measure in _OF_LATENTS
            and section_of(e) == evaluation
            and e.key.dictionary == one.side.subject
        }
        for one in (first, second)
    )
    for place, other in theirs.items():
        if place in known:
            yield unpaired(known[place], other, _key(first, second, other.key, other.measure))


def _place(measure: str, key: Key, several: bool) -> tuple[str, Key]:
    return measure, place_of(key, site=several and measure not in _WHOLE)


def _key(first: _Opened, second: _Opened, key: Key, measure: str) -> Key:
    return replace(key, dictionary=second.name, compared=first.name, about=measure)


def _learned(one: _Opened) -> tuple[Any, ...]:
    """What decides the training rows, whose mean one ablation puts in."""
    settings, texts = one.settings, one.side.facts["texts"]["training"]
    return settings["texts"], settings["seed"], settings["core"]["training_tokens"], texts


def _kind(one: _Opened) -> str:
    subject = one.side.facts["subjects"][one.side.subject]
    return next((kind for kind in ("fitted", "delta", "adapter") if subject[kind]), "")
