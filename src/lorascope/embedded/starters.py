"""Study files and examples to begin with: they ship with the package and are copied from it."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from lorascope.errors import InputError
from lorascope.foreign import local_path

_KINDS = {"studies": "*.yaml", "examples": "*.py"}


def starters() -> dict[str, Path]:
    """{place in a new folder: file to copy there}."""
    root = _root()
    found = [file for kind, pattern in _KINDS.items() for file in (root / kind).glob(pattern)]
    return {str(file.relative_to(root)): file for file in sorted(found)}


def copy_starters(folder: Path) -> list[Path]:
    """Copy study files and examples into a folder and return where they are.

    Raises:
        InputError: one of them is there already; then none is copied.
    """
    folder = local_path(folder)
    chosen = {folder / place: source for place, source in starters().items()}
    there = [str(place) for place in chosen if os.path.lexists(place)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}{more}: already there; give another folder")
    for place, source in chosen.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            file.write(source.read_bytes())
    return list(chosen)


def _root() -> Path:
    """Of an installed package, a folder in it; of a checkout, the repository."""
    installed = Path(str(files("lorascope.embedded"))) / "start"
    return installed if installed.is_dir() else Path(str(files("lorascope"))).parents[1]
