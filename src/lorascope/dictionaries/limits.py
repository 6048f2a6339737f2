"""Checks before a foreign file is unpacked: a plain file, and small enough for memory."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from lorascope.errors import InputError
from lorascope.machine import available_memory

# Configurations are a few kilobytes; a longer one is something else.
LONGEST_TEXT = 16 * 2**20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def plain_file(path: Path) -> int:
    """The length of a file in bytes; whatever would make reading wait is refused at once.

    Raises:
        FileNotFoundError: nothing is there.
        InputError: it is a folder, a pipe, a device or a socket, or cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is {kind_of(found.st_mode)}, not a file; give the file itself")
    return found.st_size


def kind_of(mode: int) -> str:
    """What a file mode stands for, in words."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no plain file")


def affordable(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    """Refuse tensors without entries, and more than memory holds, from what a header declares.

    Raises:
        InputError: names the tensor, or both sizes.
    """
    entries = 0
    for name, shape in shapes:
        if prod(shape) <= 0:
            raise InputError(
                f"{path}: {plain(name)} has shape {shape}, so no entries; a dictionary has at "
                "least one latent and a width of at least 1; fetch it again"
            )
        entries += prod(shape)
    fits(path, 4 * entries)


def fits(path: Path, needed: int) -> None:
    """Refuse what would not fit in memory.

    Args:
        needed: bytes, as the numbers are used: float32.
    """
    free = available_memory()
    if needed > free:
        raise InputError(
            f"{path}: its tensors take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory "
            "are free; use a machine with more, or give a smaller dictionary"
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within the `with`, whatever goes wrong with a foreign file becomes one line naming it.

    Readers of other libraries fail in any way: nesting too deep, numbers too large, no memory.
    """
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except Exception as error:
        raise unreadable(path, error) from None


def unreadable(path: object, error: Exception | str, advice: str = "fetch it again") -> InputError:
    """The one line for a file that cannot be read."""
    return InputError(f"{path}: cannot be read ({reason(error)}); {advice}")


def reason(error: Exception | str) -> str:
    """The first line of an error, or its kind where it says nothing."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    lines = str(error).strip().splitlines()
    return plain(lines[0], 300) if lines else type(error).__name__


def plain(text: str, longest: int = 80) -> str:
    """A foreign name for a message: cut, and what a terminal would act on made visible."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:longest])
    return shown + "..." if len(text) > longest else shown
