"""Where a dictionary's files are: a folder, or a place on the hub fetched into one.

An address may end in what a file leaves open, `?site=layers.5` or `?k=50`, several joined by `&`.
"""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from lorascope.dictionaries.limits import kind_of, reason
from lorascope.errors import InputError, did_you_mean, require_utf8

HUB = "hf://"
# SAELens' list of published dictionaries (`registry`).
SCHEME = "saelens:"
_SAID = re.compile(r"\?([A-Za-z_]+=[^?&]*(?:&[A-Za-z_]+=[^?&]*)*)$")


@dataclass(frozen=True)
class AskedDictionary:
    """What is known of a dictionary apart from its files.

    Attributes:
        site: what it reads, where the address says it.
        k: latents a row, where the address or SAELens' list says it; 0 where neither does.
        file: the one file meant, where a folder holds several dictionaries; else empty.
        factor: what inputs are multiplied by in training, where SAELens' list knows it.
        overrides: keys laid over the configuration, as SAELens' list has them.
    """

    site: str = ""
    k: int = 0
    file: str = ""
    factor: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def said(address: str) -> tuple[str, AskedDictionary]:
    """An address without what is said at its end, and that.

    Raises:
        InputError: another key than site or k, or a k that is no number.
    """
    if not address.strip():
        raise InputError("the address of a dictionary is empty; give a folder, or hf://owner/repo")
    match = _SAID.search(address)
    if match is None or Path(address).exists():
        return address, AskedDictionary()
    pairs = dict(one.split("=", 1) for one in match[1].split("&"))
    if len(pairs) != match[1].count("&") + 1:
        raise InputError(f"{address}: says one thing twice at its end; say it once")
    for key in pairs:
        if key not in ("site", "k"):
            raise InputError(
                f"{address}: ?{key}= is not known.{did_you_mean(key, ('site', 'k'))} "
                "An address may say ?site=layers.5 or ?k=50"
            )
    if pairs.get("site") == "":
        raise InputError(f"{address}: ?site= is empty; name a site, ?site=layers.5 for instance")
    k = pairs.get("k", "1")
    if not re.fullmatch(r"[0-9]{1,9}", k) or int(k) < 1:
        raise InputError(f"{address}: k is {k!r}, expected a whole number of at least 1")
    return address[: match.start()], AskedDictionary(
        pairs.get("site", ""), int(k) if "k" in pairs else 0
    )


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
        if len(parts) < 2 or ".." in parts:
            raise InputError(f"{address}: expected hf://owner/repo/folder[@revision]")
        inside = without_file("/".join(parts[2:]), names)
        return cls("/".join(parts[:2]), inside, revision or None)

    def __str__(self) -> str:
        path = f"{HUB}{self.repo}/{self.inside}".rstrip("/")
        return f"{path}@{self.revision}" if self.revision else path


def local_folder(path: Path, names: Sequence[str]) -> Path:
    """The folder an address means; a file in it, one of `names`, stands for it.

    Raises:
        InputError: nothing is there, or neither a folder nor a file; names the likeliest folder
            beside it.
    """
    require_utf8(path)
    try:
        mode = path.stat().st_mode if path.exists() else 0
        if path.is_file():
            whole = path.as_posix()
            inside = without_file(whole, names)
            return Path(inside or ".") if inside != whole else path.parent
        if path.is_dir():
            next(path.iterdir(), None)
            return path
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be looked at ({reason(error)}); check it") from None
    if mode:
        raise InputError(f"{path}: is {kind_of(mode)}; give a folder, or a file in it")
    raise _absent(path)


def require_there(address: str) -> None:
    """Refuse the address of a folder that is not there; places on the hub are not looked up.

    Raises:
        InputError: as `said`, or names the likeliest folder beside it.
    """
    text, _ = said(address)
    path = Path(text).expanduser()
    if not text.startswith((HUB, SCHEME)) and not path.exists():
        raise _absent(path)
    require_utf8(path)


def _absent(path: Path) -> InputError:
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return InputError(
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
            f"{place}: cannot be fetched ({reason(error)}); check the name, or fetch it "
            "where there is a network and give the folder"
        ) from None
    folder = Path(root) / place.inside
    if any((folder / name).exists() for name in weights):
        return folder
    asked = posixpath.join(place.inside, names[0]) if len(names) == 1 else place.inside
    raise InputError(f"{place}: {_what_is_there(place, asked, weights)}")


def below(folder: Path, weights: Iterable[str]) -> list[str]:
    """Dictionaries up to three folders down, as paths relative to `folder`."""
    files = [
        file.relative_to(folder).as_posix()
        for name in weights
        for depth in ("*/", "*/*/", "*/*/*/")
        for file in folder.glob(f"{depth}{name}")
    ]
    return _places(files, weights)


def _places(files: Sequence[str], weights: Iterable[str]) -> list[str]:
    """Addresses of the dictionaries among files: their folders, or they where names have a *."""
    weights = list(weights)
    single = [name for name in weights if "*" in name]
    alone = {file for file in files if without_file(file, single) != file}
    plain = [name for name in weights if name not in single]
    return sorted(({without_file(file, plain) for file in files} - set(files)) | alone)


def nearest(inside: str, known: Sequence[str]) -> str:
    """' Below it: a, b.' or ' Did you mean "c"?', from the dictionaries a place has."""
    deeper = [path for path in known if path.startswith(f"{inside}/".lstrip("/"))]
    if deeper:
        more = f" and {len(deeper) - 3} more" if len(deeper) > 3 else ""
        return f" Below it: {', '.join(deeper[:3])}{more}."
    return did_you_mean(inside, known)


def _what_is_there(place: HubPlace, asked: str, weights: Iterable[str]) -> str:
    from huggingface_hub import HfApi

    where = f"no dictionary of a known format in {asked or 'its top folder'}"
    try:
        files = HfApi().list_repo_files(place.repo, revision=place.revision)
    except Exception as error:
        return (
            f"not in the local cache, and the hub cannot be asked ({reason(error)}); "
            "fetch it where there is a network, or give a folder"
        )
    known = _places(files, weights)
    return f"{where}.{nearest(asked, known)} Check the path in {place.repo}"


def without_file(path: str, names: Iterable[str]) -> str:
    """`path` without the file at its end, where that is one of `names`.

    Names may have folders, and * for any letters of one part.
    """
    parts = path.split("/")
    for name in names:
        depth = name.count("/") + 1
        if fnmatchcase("/".join(parts[-depth:]), name) and len(parts) >= depth:
            return "/".join(parts[:-depth])
    return path
