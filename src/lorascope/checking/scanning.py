"""Look at folders of adapters: in several processes, kept as it goes, taken up where it stopped."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from lorascope.checking.folders import PICKLED, SAFE
from lorascope.checking.reading import FilesRead, read_adapter
from lorascope.checking.rows import Row, StoredRows
from lorascope.errors import InputError
from lorascope.models.places import CONFIG_FILE, no_folder
from lorascope.progress import Reporter

ROWS = "scan.jsonl"
# Adapters handed to a process at once, and how many such parts wait for each.
_PART, _WAITING = 8, 2
# Raised where a row's numbers change: rows of other versions are made again.
_VERSION = 1


def adapters_in(folders: Sequence[Path]) -> list[str]:
    """Every folder that holds an adapter's configuration, at any depth, links not followed.

    Raises:
        InputError: a folder does not exist, or none holds an adapter.
    """
    found: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise no_folder("folder", folder)
        for inner, below, files in os.walk(folder):
            below.sort()
            if CONFIG_FILE in files:
                place = Path(inner)
                found.setdefault(place.resolve(), str(place))
    if not found:
        named = ", ".join(map(str, folders))
        raise InputError(f"no {CONFIG_FILE} in or below {named}: give a folder of PEFT adapters")
    return sorted(found.values())


def scan_rows(paths: Sequence[str], out: Path, workers: int, reporter: Reporter) -> StoredRows:
    """A row for every adapter, in the order of `paths`; those in `out` already are not made again.

    Every row is appended to `out`/scan.jsonl once it is made, and read from there.
    """
    rows = StoredRows(out / ROWS, paths, _stamp)
    missing = rows.missing
    with (
        reporter.bar("adapters", len(paths), "adapters") as advance,
        rows.appending() as append,
    ):
        advance(len(paths) - len(missing))
        for row in _made(missing, workers):
            append(row)
            advance(1)
    return rows


def row_of(path: str) -> Row:
    """What a scan keeps of one adapter; why, where it cannot be read."""
    empty: Row = {
        "path": path,
        "refused": "",
        "type": "",
        "base": "",
        "parameters": 0,
        "modules": 0,
        "rank": None,
        "shape": "",
        "norm": None,
        "effective_rank": None,
        "largest_share": None,
        "largest_module": "",
        "errors": [],
        "warnings": [],
    }
    try:
        read = read_adapter(path)
    except InputError as error:
        return {**empty, "refused": str(error)}
    except (OSError, MemoryError, RecursionError) as error:
        return {**empty, "refused": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return {**empty, **_numbers(read)}


def _numbers(read: FilesRead) -> Row:
    rules = {
        level: sorted({finding.rule for finding in read.findings if finding.level == level})
        for level in ("error", "warning")
    }
    found: Row = {
        "type": read.kind,
        "base": read.base or "",
        "parameters": read.parameters,
        "modules": len(read.modules),
        "errors": rules["error"],
        "warnings": rules["warning"],
        "shape": _shape(read),
    }
    moving = [module for module in read.modules if module.norm > 0]
    if not moving:
        return found
    norm = math.hypot(*(module.norm for module in moving))
    largest = max(moving, key=lambda module: module.norm)
    return {
        **found,
        "rank": max(module.shape[1] for module in moving),
        "norm": norm,
        "effective_rank": math.fsum(m.effective_rank for m in moving) / len(moving),
        "largest_share": (largest.norm / norm) ** 2,
        "largest_module": largest.path,
    }


def _shape(read: FilesRead) -> str:
    """The same for adapters of the same modules and shapes alone."""
    sizes = sorted((module.path, module.shape) for module in read.modules)
    return hashlib.sha256(repr((read.kind, sizes)).encode()).hexdigest()[:12]


def _made(paths: Sequence[str], workers: int) -> Iterator[Row]:
    """Rows as they are made; only a few adapters are on their way at any time."""
    if workers == 1 or len(paths) <= _PART:
        yield from map(_stamped, paths)
        return
    parts = _parts(paths)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_alone) as pool:
        waiting: set[Future[list[Row]]] = set()
        while True:
            room = workers * _WAITING - len(waiting)
            waiting |= {pool.submit(_rows_of, part) for part in islice(parts, room)}
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for one in done:
                yield from one.result()


def _parts(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    return (paths[at : at + _PART] for at in range(0, len(paths), _PART))


def _rows_of(paths: Sequence[str]) -> list[Row]:
    return [_stamped(path) for path in paths]


def _stamped(path: str) -> Row:
    """The stamp is taken first: a change while the files are read makes the row anew."""
    stamp = _stamp(path)
    return {**row_of(path), "stamp": stamp}


def _alone() -> None:
    """One thread a process: the products are small."""
    import torch

    torch.set_num_threads(1)


def _stamp(path: str) -> list[Any]:
    """What tells that an adapter's files were changed: sizes and times."""
    found: list[Any] = [_VERSION]
    for name in (CONFIG_FILE, SAFE, PICKLED):
        try:
            about = (Path(path) / name).stat()
            found += [about.st_size, about.st_mtime_ns]
        except OSError:
            found += [None, None]
    return found
