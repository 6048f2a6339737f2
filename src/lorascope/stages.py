"""Stages: plain functions that write a folder from settings and from earlier stages' folders.

A stage's key follows from its function and version, the package's version, its arguments and the
keys of the stages it reads; nothing else decides whether it is finished. What made it stands beside
its files in `stage.json`, so any process on any machine can make one and all others see that it is
there.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import platform
import shutil
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from lorascope.config import Settings, Subset, digest
from lorascope.errors import InputError, as_system_error, did_you_mean
from lorascope.machine import peak_memory
from lorascope.runs import fresh_partial, read_json, versions, write_json

RECORD = "stage.json"
# Bytes of the largest file whose digest a stage's record has.
_SMALL = 2**24


class Bar(Protocol):
    """What shows a stage's progress; see `progress.Reporter`."""

    track: str

    def say(self, line: str) -> None:
        """One plain line."""

    def bar(self, title: str, total: int, unit: str) -> Any:
        """A context manager that yields the function moving a bar of `total` units."""


@dataclass(frozen=True)
class Need:
    """What a stage takes while it runs.

    Attributes:
        memory: bytes, of the process's own memory.
        gpus: share of a GPU; 0 where it runs on the CPU.
        flops: floating-point operations, estimated; 0 where they do not count.
    """

    memory: int = 0
    gpus: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Maker:
    """A function that makes stages, with the version of what it writes.

    Attributes:
        function: takes a `Work` and the stage's arguments; one made `together` takes a list of
            `Work`, whose stages have their arguments.
        version: raised whenever the function's results change.
        title: what is shown while its stages are made.
        together: stages of one group are made by one call.
    """

    function: Callable[..., None]
    version: int
    title: str
    together: bool = False

    @property
    def name(self) -> str:
        """Module and name of the function."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def source(self) -> str:
        """SHA-256 of the function's code, without its comments, docstring and layout."""
        tree = ast.parse(textwrap.dedent(inspect.getsource(self.function)))
        body = tree.body[0]
        assert isinstance(body, ast.FunctionDef)
        body.decorator_list = []
        if ast.get_docstring(body) is not None:
            body.body = body.body[1:]
        return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


MAKERS: dict[str, Maker] = {}


def stage(version: int, title: str, *, together: bool = False) -> Callable[..., Maker]:
    """Make a function the maker of stages.

    Args:
        version: of what it writes; raise it when the same arguments give other files.
        title: what is shown while its stages are made.
        together: it takes the works of all unfinished stages of a group at once.
    """

    def made(function: Callable[..., None]) -> Maker:
        maker = Maker(function, version, title, together)
        MAKERS[maker.name] = maker
        return maker

    return made


@dataclass(frozen=True)
class Stage:
    """One folder of a run, and all that decides what is in it.

    Attributes:
        name: path of its folder inside the run folder.
        maker: what makes it.
        arguments: settings; dataclasses, `Settings` and parts of them, and plain data.
        inputs: names of the stages it reads.
        group: stages of one group share a call of their maker.
        need: what it takes while it runs.
    """

    name: str
    maker: Maker
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    group: str = ""
    need: Need = Need()


@dataclass(frozen=True)
class Work:
    """A stage being made.

    Attributes:
        stage: which.
        folder: an empty folder to write into; it becomes the stage's once the maker returns.
        run: the run folder, in which finished stages lie under their names.
        state: the study's model, texts and dictionaries, read when first asked for and shared by
            all stages that one process makes.
        reporter: shows progress.
    """

    stage: Stage
    folder: Path
    run: Path
    state: Any
    reporter: Bar

    def input(self, name: str) -> Path:
        """The folder of a stage that this one reads.

        Raises:
            LookupError: it is not among the stage's inputs, so its key would not follow from it.
        """
        if name not in self.stage.inputs:
            raise LookupError(f"{self.stage.name} reads {name}, which is not among its inputs")
        return self.run / name


class Graph:
    """The stages of a study, each after those it reads.

    Raises:
        ValueError: two have one name, or one reads what does not come before it.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages: dict[str, Stage] = {}
        self.keys: dict[str, str] = {}
        for one in stages:
            if one.name in self.stages:
                raise ValueError(f"two stages are named {one.name}")
            missing = [name for name in one.inputs if name not in self.stages]
            if missing:
                raise ValueError(f"{one.name} reads {', '.join(missing)}, which is not before it")
            self.stages[one.name] = one
            self.keys[one.name] = self._key(one)

    def _key(self, one: Stage) -> str:
        maker = [one.maker.name, one.maker.version, _version()]
        inputs = {name: self.keys[name] for name in one.inputs}
        return digest([maker, plain(one.arguments), inputs])

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, name: str) -> Stage:
        if name not in self.stages:
            hint = did_you_mean(name, self.stages)
            raise InputError(f"there is no stage {name}.{hint} `lorascope stages` lists them")
        return self.stages[name]

    def is_done(self, run: Path, name: str) -> bool:
        """Whether a stage lies finished in the run folder, made from what it is asked for now."""
        return record_of(run / name).get("key") == self.keys[name]

    def records(self, run: Path) -> dict[str, dict[str, Any]]:
        """{stage: what made it} of the finished ones."""
        found = {name: record_of(run / name) for name in self.stages}
        return {name: one for name, one in found.items() if one.get("key") == self.keys[name]}

    @cached_property
    def units(self) -> list[tuple[Stage, ...]]:
        """What is made by one call: a stage, or all stages of a group; in the graph's order."""
        found: dict[str, list[Stage]] = {}
        for one in self:
            found.setdefault(f"group {one.group}" if one.group else one.name, []).append(one)
        return [tuple(stages) for stages in found.values()]

    def unit_of(self, name: str) -> tuple[Stage, ...]:
        """The stages made together with one."""
        return next(unit for unit in self.units if self[name] in unit)

    def undone(self, run: Path, unit: Sequence[Stage]) -> list[Stage]:
        """Stages of a unit that are still to be made."""
        return [one for one in unit if not self.is_done(run, one.name)]

    def levels(self) -> list[list[tuple[Stage, ...]]]:
        """Units by the longest chain of units before them; those of one level are independent."""
        depth: dict[str, int] = {}
        found: list[list[tuple[Stage, ...]]] = []
        for unit in self.units:
            level = max((depth[n] + 1 for one in unit for n in one.inputs), default=0)
            for one in unit:
                depth[one.name] = level
            while len(found) <= level:
                found.append([])
            found[level].append(unit)
        return found


@cache
def _version() -> str:
    """The package's own, which is looked up in its files."""
    return metadata.version("lorascope")


def plain(value: Any) -> Any:
    """Arguments as plain data, for keys and records."""
    if isinstance(value, Settings | Subset):
        return value.plain()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(one) for one in value)
    return value


def record_of(folder: Path) -> dict[str, Any]:
    """What made a finished stage; nothing where there is none."""
    return dict(read_json(folder / RECORD)) if (folder / RECORD).is_file() else {}


def make(graph: Graph, run: Path, unit: Sequence[Stage], state: Any, reporter: Bar) -> None:
    """Make the stages of a unit that are not finished; each appears whole or not at all.

    Raises:
        InputError: the input does not allow it.
        OSError: the system refused to write.
    """
    todo = graph.undone(run, unit)
    if not todo:
        return
    for one in todo:
        missing = [name for name in one.inputs if not graph.is_done(run, name)]
        if missing:
            raise InputError(f"stage {one.name} reads {', '.join(missing)}: make that first")
    works = [Work(one, fresh_partial(run / one.name), run, state, reporter) for one in todo]
    started, before = time.perf_counter(), time.process_time()
    try:
        if unit[0].maker.together:
            unit[0].maker.function(works)
        else:
            for work in works:
                work.stage.maker.function(work, **work.stage.arguments)
        took = (time.perf_counter() - started, time.process_time() - before)
        for work in works:
            _finish(graph, work, took[0] / len(works), took[1] / len(works))
    except BaseException as error:
        for work in works:
            shutil.rmtree(work.folder, ignore_errors=True)
        found = as_system_error(error, run) if isinstance(error, Exception) else None
        if found is not None and found is not error:
            raise found from None
        raise


def _finish(graph: Graph, work: Work, seconds: float, cpu_seconds: float) -> None:
    one, target = work.stage, work.run / work.stage.name
    record = {
        "key": graph.keys[one.name],
        "made_by": {"function": one.maker.name, "version": one.maker.version},
        "arguments": plain(one.arguments),
        "inputs": {name: graph.keys[name] for name in one.inputs},
        "versions": versions(),
        "host": platform.node(),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_memory": peak_memory(),
        "finished": time.strftime("%FT%T%z"),
        "digests": _digests(work.folder),
    }
    write_json(work.folder / RECORD, record)
    try:
        if not graph.is_done(work.run, one.name):
            # The record goes first: no moment at which the old key stands for half a folder.
            (target / RECORD).unlink(missing_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            work.folder.replace(target)
    except OSError:
        if not graph.is_done(work.run, one.name):
            raise
    # Another process made the same in the meantime: one of the two is enough.
    shutil.rmtree(work.folder, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of small files in a folder itself; shards have digests of their own."""
    small = (p for p in sorted(folder.iterdir()) if p.is_file() and p.stat().st_size <= _SMALL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in small}


def changed_since(folder: Path) -> list[str]:
    """Files of a finished stage that are not what they were when it was made, or gone."""
    noted = record_of(folder).get("digests", {})
    now = _digests(folder) if folder.is_dir() else {}
    return [name for name, digest in noted.items() if now.get(name) != digest]


def drop_others(graph: Graph, run: Path) -> None:
    """Remove finished stages that the study does not ask for: those of settings it had before."""
    for found in sorted(run.rglob(RECORD)):
        if found.parent.relative_to(run).as_posix() not in graph.stages:
            shutil.rmtree(found.parent, ignore_errors=True)
    for folder, _, _ in os.walk(run, topdown=False):
        if Path(folder) != run and not any(Path(folder).iterdir()):
            Path(folder).rmdir()
