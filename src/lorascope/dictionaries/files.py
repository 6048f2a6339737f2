"""One address for a dictionary: a local folder, or `hf://repo/path[@revision]`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from types import ModuleType

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.formats import gemma_scope, saelens
from lorascope.errors import InputError, did_you_mean

FORMATS: dict[str, ModuleType] = {"saelens": saelens, "gemma_scope": gemma_scope}


def open_dictionary(address: str | Path) -> Dictionary:
    """Open a dictionary from a folder or from the hub.

    Args:
        address: a folder (or a file inside it), or `hf://owner/repo/folder[@revision]`.

    Raises:
        InputError: nothing is there, or no known format is.
    """
    text = str(address)
    folder = _fetch(text) if text.startswith("hf://") else _local(Path(text))
    for reader in FORMATS.values():
        if reader.recognises(folder):
            opened: Dictionary = reader.read(folder)
            return opened
    names = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
    raise InputError(
        f"{text}: no dictionary of a known format ({', '.join(FORMATS)}); the folder holds {names}"
    )


def save(dictionary: Dictionary, folder: str | Path) -> None:
    """Write a dictionary in SAELens layout with its card."""
    saelens.write(dictionary, Path(folder))


def _local(path: Path) -> Path:
    if path.is_file():
        return path.parent
    if path.is_dir():
        return path
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(
        f"{path}: no such folder.{did_you_mean(str(path), siblings)} "
        "A dictionary on the hub is written hf://owner/repo/folder"
    )


def _fetch(address: str) -> Path:
    from huggingface_hub import snapshot_download

    place, _, revision = address.removeprefix("hf://").partition("@")
    parts = PurePosixPath(place).parts
    if len(parts) < 2:
        raise InputError(f"{address}: expected hf://owner/repo/folder[@revision]")
    repo, inside = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        # File by file: a wildcard would bring every dictionary below the folder along.
        wanted = [
            str(PurePosixPath(inside, n)) for reader in FORMATS.values() for n in reader.FILES
        ]
        root = snapshot_download(repo, revision=revision or None, allow_patterns=wanted)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{address}: cannot be fetched ({first}); check the name, or fetch it where there is a "
            "network and give the folder"
        ) from None
    folder = Path(root) / inside
    if not folder.is_dir():
        raise InputError(f"{address}: {repo} has no folder {inside}; check the path on the hub")
    return folder
