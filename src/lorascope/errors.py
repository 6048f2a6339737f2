"""Errors that are the user's to mend: one clear line, exit code 2."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again: what was finished stays",
    errno.EDQUOT: "free some space and run the same command again: what was finished stays",
    errno.EROFS: "give --out a folder that can be written to",
    errno.EACCES: "check its permissions, or give --out another folder",
    errno.EPERM: "check its permissions, or give --out another folder",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n) and run the same command again",
    errno.ENOMEM: "close other programs, or take less at a time",
    errno.ENFILE: "allow more open files and run the same command again",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
}
_NOT_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES, errno.EPERM)


class InputError(ValueError):
    """The input is wrong. The message says what, where and what to do, in one line.

    Examples:
        >>> try:
        ...     ls.open_dictionary("no/such/folder")
        ... except ls.InputError as error:
        ...     print(str(error).partition(":")[0])
        no/such/folder
    """


class UnknownName(InputError, KeyError):  # noqa: N818 - it names what there is not
    """Nothing has this name. The message says what does, the nearest first."""

    def __str__(self) -> str:
        # A KeyError would quote its message as if it were a key.
        return str(self.args[0])

    @classmethod
    def of(cls, what: str, word: str, known: Iterable[str]) -> UnknownName:
        """The error for a word that is none of those known.

        Args:
            what: what it should have named, with its place: "measure in this table".
        """
        names = list(dict.fromkeys(known))
        near = nearest(word, names)
        said = f"did you mean {' or '.join(near)}?" if near else f"there are {_some(names)}"
        return cls(f'no {what} is called "{word}": {said}')


class NoNullAdapter(InputError):  # noqa: N818 - it names what there is not
    """No random adapter matches this one. The message says why; the adapter itself is usable."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


def require_utf8(path: str | os.PathLike[str]) -> None:
    """Refuse a path whose bytes are no UTF-8: the libraries that read and write tensors do too.

    Raises:
        InputError: it is one.
    """
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise InputError(
            f"{os.fspath(path)}: a name in it is not written in UTF-8, and tensors cannot be read "
            "or written there; rename it"
        ) from None


def as_utf8(text: str) -> str:
    """A path or a text with one in it, as it can be written to a file; U+FFFD for what is none."""
    try:
        return os.fsencode(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # half a surrogate pair, which no path holds
        return text.encode("utf-8", "replace").decode()


def require_kind(value: object, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    """Refuse an argument of another kind than a function can work with.

    Args:
        what: the argument, as the caller wrote it.
        wanted: what to give instead.

    Raises:
        InputError: `value` is none of `kinds`; a bool is no number.
    """
    if isinstance(value, kinds) and not (isinstance(value, bool) and kinds is not bool):
        return
    raise InputError(f"{what} is {kind_of(value)}: give {wanted}")


def kind_of(value: object) -> str:
    """What a value is, in a few words: `None`, `the text "relu"`, `3.5`, `of type ReLU`."""
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 60 else value[:59] + "…"}"'
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    return f"of type {type(value).__name__}"


def nearest(word: str, known: Iterable[str], most: int = 4) -> list[str]:
    """Known names that `word` begins or is spelled like, the nearest first.

    For "angle" of "angle.mean", "angel" and "rank" these are "angle.mean" and "angel".
    """
    names = list(known)
    begun = [name for name in names if word and name.startswith(f"{word}.")]
    like = difflib.get_close_matches(word, names, n=most, cutoff=0.6)
    return list(dict.fromkeys([*begun, *like]))[:most]


def _some(names: list[str], most: int = 12) -> str:
    """Names in a row, cut after the first."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" if names else "none at all"


def system_error(error: OSError, place: object = "") -> str:
    """What the operating system refused, as one line: the file, the reason, what to do.

    Args:
        place: the file or folder, where the error names none.
    """
    where = error.filename if error.filename is not None else place
    where = os.fsdecode(where) if isinstance(where, bytes) else str(where or "")
    what = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    advice = _ADVICE.get(error.errno or 0, "run the same command again once that is mended")
    return f"{where}{where and ': '}{what}; {advice}"


def as_system_error(error: BaseException, place: object) -> OSError | None:
    """The system's error inside one that a library wrote words around; None where there is none.

    Readers and writers of tensors raise kinds of their own, with "(os error 28)", "Errno 28" or
    "Too many open files (24)" in the message.
    """
    if isinstance(error, OSError):
        return error
    text = str(error)
    found = re.search(r"(?:os error |\[Errno )(\d+)", text)
    numbers = [found[1]] if found else re.findall(r"\((\d{1,3})\)", text)
    for number in map(int, numbers):
        if found or f"{os.strerror(number)} ({number})" in text:
            return OSError(number, os.strerror(number), str(place))
    return None


def cause_in_the_system(error: BaseException) -> OSError | None:
    """What the system refused for reasons of its own, where a reader took it for a file's fault.

    Too few file handles, no memory, no permission: nothing that fetching a file again mends.
    """
    seen: BaseException | None = error.__cause__ or error.__context__
    while seen is not None:
        file = re.search(r"file <?([^<>]+?)>? in ", str(seen))
        found = as_system_error(seen, file[1] if file else "")
        if found is not None and found.errno in _NOT_THE_FILE:
            return found
        seen = seen.__cause__ or seen.__context__
    return None
