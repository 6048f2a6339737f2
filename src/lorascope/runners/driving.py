"""Run units at the same time, each once the stages it reads are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from lorascope.errors import InputError
from lorascope.runs import Run
from lorascope.stages import Graph, Stage

Unit = tuple[Stage, ...]


class StagesError(InputError):
    """Some stages could not be made; says which and why."""


class Executor(Protocol):
    """What makes units."""

    @property
    def busy(self) -> int:
        """Units that are being made."""

    def has_room(self, unit: Unit) -> bool:
        """Whether a unit can start now."""

    def start(self, unit: Unit) -> None:
        """Begin a unit."""

    def finished(self) -> Iterable[tuple[Unit, str]]:
        """Wait for news; units that ended, with why they failed or an empty string."""


def drive(graph: Graph, run: Run, executor: Executor, advance: Callable[[str, int], None]) -> None:
    """Make everything that is not finished.

    A unit that fails leaves the others going; what reads it waits for the next run.

    Raises:
        StagesError: some units failed.
    """
    waiting = [unit for unit in graph.units if graph.undone(run.folder, unit)]
    done = {one.name for one in graph if graph.is_done(run.folder, one.name)}
    failed: dict[str, str] = {}
    while waiting or executor.busy:
        for unit in list(waiting):
            ready = all(name in done for one in unit for name in one.inputs)
            if ready and executor.has_room(unit):
                waiting.remove(unit)
                advance(unit[0].maker.title, 0)
                executor.start(unit)
        if not executor.busy:
            break
        for unit, reason in executor.finished():
            names = [one.name for one in unit]
            if reason:
                failed[names[0]] = reason
                continue
            advance(unit[0].maker.title, sum(name not in done for name in names))
            done.update(names)
            run.note(graph.records(run.folder))
    run.note(graph.records(run.folder))
    if failed:
        _refuse(failed)


def _refuse(failed: dict[str, str]) -> None:
    (name, reason), *others = failed.items()
    more = f" (and {len(others)} more: {', '.join(other for other, _ in others)})" if others else ""
    raise StagesError(
        f"stage {name}{more} could not be made: {reason}; what does not need it is finished, and "
        "the same command goes on"
    )
