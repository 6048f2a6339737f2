"""A run folder that is removed again if its study is refused before any stage is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.locking import contents, locked
from lorascope.runs import Run, write_atomically


@contextmanager
def run_folder(
    folder: Path, study: Settings, redo: bool = False, command: str = ""
) -> Iterator[Run]:
    """A study's run folder; it goes again if the study is refused before any stage is finished.

    A folder that held anything before keeps it, its study among it. No other process works in it
    at the same time.

    Args:
        command: the command line, kept for the report.

    Raises:
        InputError: as `Run`, or another process is at work on it.
    """
    with locked(folder):
        fresh = not contents(folder)
        before = folder / "study.yaml"
        settings = before.read_text(encoding="utf-8") if before.is_file() else None
        run = Run(folder, study, redo, command)
        try:
            yield run
        except InputError:
            if fresh and run.passing.issuperset(run.manifest["stages"]):
                shutil.rmtree(folder)
            elif settings is not None:
                write_atomically(before, settings)
            raise
