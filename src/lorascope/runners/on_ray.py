"""The stages of a study as tasks of a Ray cluster whose nodes share the run folder's disk.

The folder says what is finished: a driver that dies loses nothing, and a unit whose worker or node
dies runs again elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.printing import shown_warnings
from lorascope.progress import Reporter
from lorascope.runners import Opener, Runner
from lorascope.runners.driving import Unit, drive
from lorascope.runners.local import titles
from lorascope.runs import Run
from lorascope.stages import Graph, make

# How often a unit is begun again after its worker died.
_RETRIES = 3


def on_ray(opener: Opener, address: str, threads: int | None = None) -> Runner:
    """A runner on a Ray cluster.

    Args:
        opener: opens the study of a run folder again, on every node; importable by name there.
        address: as `ray.init` takes it: "auto", "ray://host:10001", or "local" for one started
            here.
        threads: processor cores of a task; 1 by default. The last digits of some products depend
            on it, so a run is bit-equal to another with as many.

    Raises:
        InputError: Ray is not installed, or no cluster is at the address.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--ray needs the package ray: pip install 'lorascope[cluster]'") from None
    cores = threads or 1

    def run_on_ray(graph: Graph, run: Run, state: Any, reporter: Reporter) -> None:
        del state
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--ray {address}: no cluster there ({str(error).splitlines()[0][:160]}); start "
                "one with `ray start --head`"
            ) from None
        try:
            with reporter.stages(titles(graph, run.folder)) as advance:
                tasks = _Tasks(ray, opener, run.folder.absolute(), cores, reporter.track)
                drive(graph, run, tasks, advance)
        finally:
            ray.shutdown()

    return run_on_ray


class _Tasks:
    """Units as tasks; Ray finds the nodes that have room for them."""

    def __init__(self, ray: Any, opener: Opener, folder: Path, cores: int, track: str) -> None:
        self._ray, self._arguments, self._cores, self._track = ray, (opener, folder), cores, track
        self._task = ray.remote(max_retries=_RETRIES)(_task)
        self._going: dict[Any, Unit] = {}

    @property
    def busy(self) -> int:
        """Units that are being made, or wait for a node."""
        return len(self._going)

    def has_room(self, unit: Unit) -> bool:
        """Always: what has no room yet waits in the cluster."""
        del unit
        return True

    def start(self, unit: Unit) -> None:
        """Hand a unit to the cluster."""
        need = max((one.need for one in unit), key=lambda need: need.memory)
        options = {"num_cpus": self._cores, "num_gpus": need.gpus, "memory": need.memory}
        task = self._task.options(**options)
        own = (unit[0].name, self._cores, str(Path.cwd()), self._track)
        going = task.remote(*self._arguments, *own)
        self._going[going] = unit

    def finished(self) -> Iterator[tuple[Unit, str]]:
        """Wait for a task to end."""
        for ended in self._ray.wait(list(self._going), num_returns=1)[0]:
            unit = self._going.pop(ended)
            try:
                yield unit, str(self._ray.get(ended))
            except self._ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines()
                yield unit, lines[-1] if lines else type(error).__name__


# {run folder: its study}, opened once in each of the cluster's worker processes.
_OPENED: dict[Path, Any] = {}


def _task(opener: Opener, folder: Path, name: str, cores: int, place: str, track: str) -> str:
    """Make one unit on a node; returns why it could not be made, or nothing."""
    import torch

    torch.set_num_threads(cores)
    # Relative addresses in a study are those of where it was started.
    with suppress(OSError):
        os.chdir(place)
    reporter = Reporter(quiet=True, track=track)
    try:
        with shown_warnings():
            if folder not in _OPENED:
                _OPENED[folder] = opener(folder, reporter)
            opened = _OPENED[folder]
            make(opened.graph, folder, opened.graph.unit_of(name), opened.state, reporter)
    except (InputError, OSError) as error:
        return " ".join(str(error).split())
    return ""
