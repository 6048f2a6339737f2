"""The folders that comparisons are written into, and the runs that they name."""

from __future__ import annotations

from pathlib import Path

from lorascope.errors import InputError

MARK = "comparison.json"


def require_free(folder: Path) -> None:
    """Refuse a folder that holds something else than a comparison."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give --out a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise InputError(f"{folder}: not empty and no comparison; give --out another folder")


def labels(*named: tuple[Path, str]) -> list[str]:
    """Names; with their runs' where any are alike; with numbers where those are too."""
    names = [name for _, name in named]
    if len(set(names)) == len(names):
        return names
    longer = [f"{folder.resolve().name}/{name}" for folder, name in named]
    if len(set(longer)) == len(longer):
        return longer
    return [f"{name}#{number}" for number, name in enumerate(longer, start=1)]
