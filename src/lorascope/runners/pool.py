"""The stages of a study in several processes of this machine, each with a model of its own.

A unit starts once all it reads is finished and its memory is free. One that fails leaves the others
going; what reads it waits for the next run, and every failure is named at the end.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.machine import available_memory, processors, total_memory
from lorascope.printing import shown_warnings
from lorascope.progress import Advance, Reporter
from lorascope.runners import Opener, Runner
from lorascope.runners.driving import Unit, drive
from lorascope.runners.local import run_here, titles
from lorascope.runs import Run
from lorascope.stages import Graph, make

# Moves of a bar that are not worth a message of their own, seconds.
_QUIET = 0.1
# Processes that are begun unasked: at most so many, where so much arithmetic is left that their
# start (libraries and a model each) is made up for, and so much memory stays free for each beyond
# what its hungriest stage needs.
_UNASKED, _WORTH, _SPARE = 4, 5e12, 10**9


def as_many_as_fit(opener: Opener, threads: int | None = None) -> Runner:
    """A runner with a process for every processor, at most four, as far as memory goes.

    All stages are made in this process where little is to be done, or where they need a GPU.

    Args:
        opener, threads: as of `in_pool`.
    """

    def run_where_it_fits(graph: Graph, run: Run, state: Any, reporter: Reporter) -> None:
        count = fitting_workers(graph, run.folder)
        if count == 1:
            if threads is not None:
                set_threads(threads)
            run_here(graph, run, state, reporter)
            return
        each = threads or max(1, processors() // count)
        reporter.say(
            f"{count} processes of {each} {'thread' if each == 1 else 'threads'} make the stages; "
            "--workers 1 makes them in one"
        )
        in_pool(opener, count, each)(graph, run, state, reporter)

    return run_where_it_fits


def fitting_workers(graph: Graph, folder: Path) -> int:
    """How many processes make the stages of a run that are left soonest on this machine."""
    left = [one for unit in graph.units for one in graph.undone(folder, unit)]
    if sum(one.need.flops for one in left) < _WORTH or any(one.need.gpus for one in left):
        return 1
    memory = available_memory() // (max(one.need.memory for one in left) + _SPARE)
    return max(1, min(processors(), memory, _UNASKED))


def in_pool(opener: Opener, workers: int, threads: int | None = None) -> Runner:
    """A runner with so many processes.

    Args:
        opener: opens the study of a run folder again, in every process; importable by name.
        workers: how many.
        threads: of each; by default the processors that this process may use, shared out. The last
            digits of some products depend on it, so a run is bit-equal to another with as many.
    """
    shared = threads or max(1, processors() // workers)

    def run_in_pool(graph: Graph, run: Run, state: Any, reporter: Reporter) -> None:
        del state
        with reporter.stages(titles(graph, run.folder)) as advance:
            pool = _Pool(opener, run.folder, workers, shared, reporter)
            try:
                drive(graph, run, pool, advance)
            finally:
                pool.close()

    return run_in_pool


@dataclass
class _Worker:
    """One process, what it is making, and the bars it shows."""

    process: BaseProcess
    connection: Connection
    unit: Unit | None = None
    bars: dict[int, tuple[Any, Advance]] = field(default_factory=dict)

    def close_bars(self) -> None:
        """Take away what a process that ended left showing."""
        for shown, _ in self.bars.values():
            shown.__exit__(None, None, None)
        self.bars.clear()


class _Pool:
    """Processes that make units; one that dies is replaced."""

    def __init__(
        self, opener: Opener, folder: Path, workers: int, threads: int, reporter: Reporter
    ) -> None:
        self._arguments = (opener, folder, threads, reporter.track)
        self._reporter = reporter
        self._most = workers
        self._workers: list[_Worker] = []

    @property
    def busy(self) -> int:
        """Units that are being made."""
        return sum(worker.unit is not None for worker in self._workers)

    def has_room(self, unit: Unit) -> bool:
        """Whether a process and the memory it needs are free."""
        if self.busy == 0:
            # With nothing else going on there is no use in waiting for memory.
            return True
        promised = sum(_memory(worker.unit) for worker in self._workers if worker.unit)
        free = total_memory() - promised
        return self.busy < self._most and _memory(unit) <= free

    def start(self, unit: Unit) -> None:
        """Give a unit to a free process, or to a new one."""
        worker = next((w for w in self._workers if w.unit is None), None) or self._begun()
        worker.unit = unit
        worker.connection.send(unit[0].name)

    def _begun(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def finished(self) -> Iterator[tuple[Unit, str]]:
        """Wait for news; units that ended, with why they failed or an empty string."""
        connections = {worker.connection: worker for worker in self._workers if worker.unit}
        for ready in wait(list(connections)):
            worker = connections[ready]  # type: ignore[index]
            unit = worker.unit
            assert unit is not None
            try:
                what, *values = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                worker.close_bars()
                self._workers.remove(worker)
                yield unit, _ended(worker.process.exitcode)
                continue
            if what == "ended":
                worker.unit = None
                yield unit, values[0]
            else:
                self._show(worker, what, values)

    def _show(self, worker: _Worker, what: str, values: list[Any]) -> None:
        if what == "say":
            self._reporter.say(*values)
        elif what == "open":
            number, *settings = values
            shown = self._reporter.bar(*settings)
            worker.bars[number] = shown, shown.__enter__()
        elif what == "advance":
            worker.bars[values[0]][1](values[1])
        elif what == "close":
            shown, _ = worker.bars.pop(values[0])
            shown.__exit__(None, None, None)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.close_bars()
            with suppress(OSError):
                worker.connection.close()
            if worker.unit is not None:
                worker.process.terminate()
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()


def _memory(unit: Unit) -> int:
    return max(one.need.memory for one in unit)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return (
            f"its process was killed by signal {-code}, as systems do when memory is short; give "
            "fewer --workers"
        )
    return f"its process ended with code {code}"


def _work(connection: Connection, opener: Opener, folder: Path, threads: int, track: str) -> None:
    """What a process does: open the study once, make the units it is told, say how it goes."""
    set_threads(threads)
    with shown_warnings():
        _make_units(connection, opener, folder, track)


def set_threads(count: int) -> None:
    """How many threads products of this process run on."""
    import torch

    torch.set_num_threads(count)


def _make_units(connection: Connection, opener: Opener, folder: Path, track: str) -> None:
    reporter: Any = _Forwarding(connection, track)
    opened = None
    while True:
        try:
            name = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            opened = opened or opener(folder, reporter)
            make(opened.graph, folder, opened.graph.unit_of(name), opened.state, reporter)
            reason = ""
        except (InputError, OSError) as error:
            reason = " ".join(str(error).split())
        except KeyboardInterrupt:
            return
        except Exception:
            reason = traceback.format_exc()
        with suppress(OSError):
            connection.send(("ended", reason))


class _Forwarding:
    """A reporter whose bars are shown by another process."""

    def __init__(self, connection: Connection, track: str) -> None:
        self.track = track
        self._connection, self._count = connection, 0

    def say(self, line: str) -> None:
        """One plain line."""
        self._connection.send(("say", line))

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """As `Reporter.bar`."""
        self._count += 1
        number, moved, last = self._count, 0, time.monotonic()
        self._connection.send(("open", number, title, total, unit))

        def advance(count: int) -> None:
            nonlocal moved, last
            moved += count
            if time.monotonic() - last >= _QUIET:
                self._connection.send(("advance", number, moved))
                moved, last = 0, time.monotonic()

        try:
            yield advance
        finally:
            self._connection.send(("advance", number, moved))
            self._connection.send(("close", number))
