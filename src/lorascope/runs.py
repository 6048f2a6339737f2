"""A run folder: named settings, a manifest, and files that are never half there.

What is in it is made by stages (`lorascope.stages`); the manifest repeats their keys and times.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from lorascope.config import Settings, read_yaml
from lorascope.errors import InputError
from lorascope.foreign import JSON_BYTES, first_line, parse_json, read_bytes
from lorascope.locking import contents
from lorascope.machine import is_running

# Of a stage's record, what the manifest repeats.
_NOTED = ("key", "seconds", "cpu_seconds", "peak_memory", "finished")
_LIBRARIES = ("lorascope", "torch", "transformers", "peft", "numpy", "scipy", "altair")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old or the new content, never a part."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside `path`, which takes its place once the `with` ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write plain data as a JSON file, as `write_atomically` does."""
    write_atomically(path, json.dumps(data, indent=1) + "\n")


def command_of(folder: Path) -> str:
    """The command line that a run folder was last made with."""
    return str(read_json(folder / "manifest.json").get("command", ""))


def read_json(path: Path) -> Any:
    """The content of a JSON file; one clear line where it is missing or broken."""
    try:
        text = read_bytes(path, JSON_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; is this a run folder?") from None
    except OSError as error:
        raise InputError(f"{path}: not readable as JSON ({first_line(error)}); remake it") from None
    return parse_json(text, path, "remake it")


class Run:
    """One study's output folder.

    Args:
        folder: created if missing; an existing one must hold the same study.
        study: the whole configuration; written as `study.yaml`.
        redo: let the folder hold the same study with other settings; stages that depend on what
            has changed are made again.
        command: the command line; by default the last one that was given stays.

    Raises:
        InputError: the folder holds another study, or files that are no run at all.
    """

    def __init__(
        self, folder: Path, study: Settings, redo: bool = False, command: str = ""
    ) -> None:
        self.folder = folder
        self.refuse_foreign(folder, study, redo)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "study.yaml", study.yaml())
        self._manifest_path = folder / "manifest.json"
        before = read_json(self._manifest_path) if self._manifest_path.exists() else {}
        self.manifest: dict[str, Any] = {
            "study": study.digest(),
            "command": command or before.get("command", ""),
            "stages": before.get("stages", {}),
        }
        # Told of the finished stages whenever they are noted.
        self.followed: Callable[[Mapping[str, Mapping[str, Any]]], object] | None = None
        # Stages that a study which is refused leaves behind only beside others.
        self.passing: set[str] = set()
        self._save()

    @staticmethod
    def refuse_foreign(folder: Path, study: Settings, redo: bool = False) -> None:
        """Refuse a folder that is not this study's to use; raises as the class."""
        if folder.is_file():
            raise InputError(f"{folder}: is a file; give --out a folder")
        if not contents(folder):
            return
        if not (folder / "study.yaml").exists():
            raise InputError(f"{folder}: not empty and not a run folder; give --out another folder")
        before, now = read_yaml(folder / "study.yaml"), study.plain()
        if before != now and not redo:
            changed = _differences(before, now)
            raise InputError(
                f"{folder}: holds another study (differs in {', '.join(changed[:4])}); "
                "give --out another folder, or --redo what depends on that"
            )

    def note(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Write into the manifest which of a study's stages are finished.

        Args:
            records: {stage: what made it}, as `stages.Graph.records` gives it.
        """
        self.manifest["stages"] = {
            name: {field: one[field] for field in _NOTED} for name, one in records.items()
        }
        self._save()
        if self.followed is not None:
            self.followed(records)

    def _save(self) -> None:
        write_json(self._manifest_path, self.manifest)


def fresh_partial(target: Path) -> Path:
    """An empty folder to make a stage in, of this process alone; those of ended ones go."""
    here = socket.gethostname()
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        owner = left.name.removeprefix(f".{target.name}.").removesuffix(".partial")
        process, _, host = owner.partition("@")
        # Another machine's processes cannot be asked whether they run.
        if host == here and process.isdecimal() and not _is_another(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}@{here}.partial")
    partial.mkdir(parents=True)
    return partial


def _is_another(process: int) -> bool:
    return process != os.getpid() and is_running(process)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}")
    return found
