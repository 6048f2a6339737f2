"""Where a dictionary's files are: a folder, or a place on the hub fetched into one."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lorascope.errors import InputError, did_you_mean

HUB = "hf://"


@dataclass(frozen=True)
class HubPlace:
    """A folder of a repository on the hub; `revision` None is its main branch."""

    repo: str
    inside: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: str, names: Iterable[str]) -> HubPlace:
        """`hf://owner/repo/folder[@revision]`; a file among `names` stands for its folder."""
        place, _, revision = address.removeprefix(HUB).partition("@")
        parts = PurePosixPath(place).parts
        if len(parts) < 2:
            raise InputError(f"{address}: expected hf://owner/repo/folder[@revision]")
        inside = _without_file("/".join(parts[2:]), names)
        return cls("/".join(parts[:2]), inside, revision or None)

    def __str__(self) -> str:
        path = f"{HUB}{self.repo}/{self.inside}".rstrip("/")
        return f"{path}@{self.revision}" if self.revision else path


def local_folder(path: Path, names: Sequence[str]) -> Path:
    """The folder an address means; a file in it, one of `names`, stands for it.

    Raises:
        InputError: nothing is there; names the likeliest folder beside it.
    """
    if path.is_file():
        whole = path.as_posix()
        inside = _without_file(whole, names)
        return Path(inside) if inside != whole else path.parent
    if path.is_dir():
        return path
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(
        f"{path}: no such folder.{did_you_mean(str(path), siblings)} "
        "A dictionary on the hub is written hf://owner/repo/folder"
    )


def fetch(place: HubPlace, names: Sequence[str], weights: Sequence[str]) -> Path:
    """The folder that holds a place's files here, fetched where they are not yet.

    File by file: a wildcard would bring every dictionary below the folder along.

    Args:
        names: files to fetch, relative to the folder.
        weights: those of them that show a dictionary to be there.

    Raises:
        InputError: the repository or the folder cannot be had; names folders like it.
    """
    from huggingface_hub import snapshot_download

    paths = [posixpath.normpath(posixpath.join(place.inside, name)) for name in names]
    wanted = sorted({glob.escape(path) for path in paths if not path.startswith("..")})
    try:
        root = snapshot_download(place.repo, revision=place.revision, allow_patterns=wanted)
    except Exception as error:
        raise InputError(
            f"{place}: cannot be fetched ({_first_line(error)}); check the name, or fetch it "
            "where there is a network and give the folder"
        ) from None
    folder = Path(root) / place.inside
    if any((folder / name).exists() for name in weights):
        return folder
    raise InputError(f"{place}: {_what_is_there(place, weights)}")


def below(folder: Path, weights: Iterable[str]) -> list[str]:
    """Dictionaries up to three folders down, as paths relative to `folder`."""
    found = {
        _without_file(file.relative_to(folder).as_posix(), [name])
        for name in weights
        for depth in ("*/", "*/*/", "*/*/*/")
        for file in folder.glob(f"{depth}{name}")
    }
    return sorted(found)


def nearest(inside: str, known: Sequence[str]) -> str:
    """' Below it: a, b.' or ' Did you mean "c"?', from the dictionaries a place has."""
    deeper = [path for path in known if path.startswith(f"{inside}/".lstrip("/"))]
    if deeper:
        more = f" and {len(deeper) - 3} more" if len(deeper) > 3 else ""
        return f" Below it: {', '.join(deeper[:3])}{more}."
    return did_you_mean(inside, known)


def _what_is_there(place: HubPlace, weights: Iterable[str]) -> str:
    from huggingface_hub import HfApi

    where = f"no dictionary of a known format in {place.inside or 'its top folder'}"
    try:
        files = HfApi().list_repo_files(place.repo, revision=place.revision)
    except Exception as error:
        return (
            f"not in the local cache, and the hub cannot be asked ({_first_line(error)}); "
            "fetch it where there is a network, or give a folder"
        )
    folders = {_without_file(file, weights) for file in files}
    known = sorted(folders - set(files))
    return f"{where}.{nearest(place.inside, known)} Check the path in {place.repo}"


def _without_file(path: str, names: Iterable[str]) -> str:
    """`path` without the file at its end, where that is one of `names` (which may have folders)."""
    for name in names:
        if path == name:
            return ""
        if path.endswith(f"/{name}"):
            return path.removesuffix(f"/{name}")
    return path


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
