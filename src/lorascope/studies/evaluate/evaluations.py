"""The function that computes each evaluation of a subject, by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lorascope.errors import InputError
from lorascope.results import Estimate
from lorascope.stages import Work
from lorascope.studies.evaluate.absorption import absorption
from lorascope.studies.evaluate.autointerp import autointerp
from lorascope.studies.evaluate.benchmarks import benchmarks
from lorascope.studies.evaluate.core import core
from lorascope.studies.evaluate.disentangling import disentangling
from lorascope.studies.evaluate.labelled import Labelled, binary_sets
from lorascope.studies.evaluate.probing import probing
from lorascope.studies.evaluate.settings import (
    Absorption,
    Autointerp,
    Benchmarks,
    Core,
    Disentangling,
    Probing,
    Spurious,
    Targeted,
)
from lorascope.studies.evaluate.state import Evaluating
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.studies.evaluate.targeted import targeted
from lorascope.studies.evaluate.units import Units


@dataclass
class Taken:
    """What one evaluation of one subject found.

    Attributes:
        facts: what is no estimate.
        warnings: what to know before relying on it.
        units: what the numbers are made of.
    """

    estimates: list[Estimate] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    units: list[Units] = field(default_factory=list)


def take_core(work: Work, subject: OpenedSubject, settings: Core, seed: int) -> Taken:
    """Reconstruction and what splicing costs."""
    del settings  # how many tokens decides the windows
    state: Evaluating = work.state
    found = core(subject, state.training, state.held_out, seed)
    return Taken(found.estimates, {"density": found.facts}, units=found.units)


def sets_of(settings: Probing) -> list[Labelled]:
    """The binary sets that probing is asked for.

    Raises:
        InputError: a source is not there, or two sets have one name.
    """
    found = [one for source in settings.sets for one in binary_sets(source, settings.limit)]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"probing.sets: two sets are called {twice}; rename one file")
    return found


def take_probing(work: Work, subject: OpenedSubject, settings: Probing, seed: int) -> Taken:
    """Probes on few latents."""
    state: Evaluating = work.state
    sets = sets_of(settings)
    units: list[Units] = []
    passes = len(sets) * len(subject.dictionaries) * len(subject.read_with)
    with work.reporter.bar(f"probing {subject.name}", passes, "sets") as advance:
        found = probing(subject, sets, state.beside(subject), settings, seed, advance, units)
    rows = {one.name: len(one.texts) for one in sets}
    return Taken(found, {"sets": rows}, units=units)


def take_absorption(work: Work, subject: OpenedSubject, settings: Absorption, seed: int) -> Taken:
    """First letters that more special latents took over; a vocabulary without words is told."""
    units: list[Units] = []
    try:
        beside = work.state.beside(subject)
        return Taken(*absorption(subject, beside, settings, seed, units), units)
    except InputError as error:
        return Taken(warnings=[f"absorption of {subject.name}: {error}"])


def take_tpp(work: Work, subject: OpenedSubject, settings: Targeted, seed: int) -> Taken:
    """Targeted probe perturbation."""
    beside = work.state.beside(subject)
    units: list[Units] = []
    return Taken(*targeted(subject, beside, settings, seed, spurious=False, units=units), units)


def take_scr(work: Work, subject: OpenedSubject, settings: Spurious, seed: int) -> Taken:
    """Spurious correlation removal."""
    beside = work.state.beside(subject)
    units: list[Units] = []
    return Taken(*targeted(subject, beside, settings, seed, spurious=True, units=units), units)


def take_autointerp(work: Work, subject: OpenedSubject, settings: Autointerp, seed: int) -> Taken:
    """Explanations by a judge, and how much they tell."""
    state: Evaluating = work.state
    log = work.run / "answers" / f"{subject.name}.jsonl"
    windows = [*state.held_out, *state.training]
    total = 6 * settings.latents * len(subject.dictionaries)
    with work.reporter.bar(f"asking {settings.judge}", total, "questions") as advance:
        beside = state.beside(subject)
        return Taken(*autointerp(subject, windows, beside, settings, log, seed, advance=advance))


def take_disentangling(
    work: Work, subject: OpenedSubject, settings: Disentangling, seed: int
) -> Taken:
    """One attribute changed, the others looked at."""
    units: list[Units] = []
    beside = work.state.beside(subject)
    return Taken(*disentangling(subject, beside, settings, seed, units), units)


def take_benchmarks(work: Work, subject: OpenedSubject, settings: Benchmarks, seed: int) -> Taken:
    """General benchmarks in every condition."""
    total = len(subject.conditions)
    with work.reporter.bar(f"benchmarks {subject.name}", total, "conditions") as advance:
        units: list[Units] = []
        return Taken(benchmarks(subject, settings, seed, advance, units), units=units)


TAKERS: dict[str, Callable[[Work, OpenedSubject, Any, int], Taken]] = {
    "core": take_core,
    "probing": take_probing,
    "absorption": take_absorption,
    "tpp": take_tpp,
    "scr": take_scr,
    "autointerp": take_autointerp,
    "disentangling": take_disentangling,
    "benchmarks": take_benchmarks,
}
