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
    errno.ENFILE: "allow more open files and run the same command again",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
}


class InputError(ValueError):
    """The input is wrong. The message says what, where and what to do, in one line."""


class NoNullAdapter(InputError):  # noqa: N818 - it names what there is not
    """No random adapter matches this one. The message says why; the adapter itself is usable."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


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


def as_system_error(error: Exception, place: object) -> OSError | None:
    """The system's error inside one that a library wrote words around; None where there is none.

    Writers of tensors raise kinds of their own, with "(os error 28)" or "Errno 28" in the message.
    """
    if isinstance(error, OSError):
        return error
    found = re.search(r"(?:os error |\[Errno )(\d+)", str(error))
    if found is None:
        return None
    number = int(found[1])
    return OSError(number, os.strerror(number), str(place))
