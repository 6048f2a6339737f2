"""Adapters of a table, each brought to a folder when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lorascope.errors import InputError
from lorascope.foreign import local_path
from lorascope.models.adapter_files import locate
from lorascope.models.weight_differences import require_entries, write_adapter
from lorascope.planted.lessons import NULL
from lorascope.planted.untaught import MadeAdapters, random_update
from lorascope.selftest.adapter_tables import HUB, AdapterTable, entry_of, fetched, null_count


def opened(
    table: AdapterTable, base: str, nulls: int | None, folder: Path
) -> Iterator[MadeAdapters]:
    """The adapters of a table, each in a folder or under an id of the hub once it is its turn.

    Args:
        base: their base model.
        nulls: random updates of their spectra that follow them; by default as many as there are
            adapters that were taught something, at most 16, where the table has no other.
        folder: for what has to be written.

    Raises:
        InputError: before the first, a file of weight differences on this machine has no such
            entry; an adapter that cannot be read, when it is its turn.
    """
    _require_entries(table)
    paths = []
    for one in table.adapters:
        path = _path(one.address, base, folder)
        if one.label != NULL:
            paths.append((one.number, path))
        yield MadeAdapters(one.label, one.number, path)
    for draw in range(null_count(table, nulls)):
        number, path = paths[draw % len(paths)]
        yield MadeAdapters(NULL, draw, _null_of(path, folder / "nulls" / f"{number}-{draw}", draw))


def _require_entries(table: AdapterTable) -> None:
    """Refuse a missing entry of a local file now, not after the readings of all lines before."""
    numbers: dict[str, set[int]] = {}
    for one in table.adapters:
        entry = entry_of(one.address)
        if entry is not None and not entry[0].startswith(HUB):
            numbers.setdefault(entry[0], set()).add(entry[1])
    for file, wanted in numbers.items():
        require_entries(local_path(file), wanted)


def _null_of(path: Path, folder: Path, draw: int) -> Path:
    source = locate("adapter", str(path))
    if source is None:
        raise InputError(
            f"{path}: a whole checkpoint; random updates need LoRA adapters: --nulls 0"
        )
    return random_update(source, folder, draw)


def _path(address: str, base: str, folder: Path) -> Path:
    entry = entry_of(address)
    if entry is None:
        return Path(address)
    source, number = entry
    file = fetched(source) if source.startswith(HUB) else local_path(source)
    name = f"{PurePosixPath(source).stem}-{number}"
    return write_adapter(file, number, base, folder / "weight_differences" / name)
