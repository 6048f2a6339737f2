"""A lock: one process at a time works on a folder; it ends with the process that holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorascope.errors import InputError, require_utf8
from lorascope.machine import is_running

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# Not handed on to processes that this one starts; on Windows bytes as they are.
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_BYTE = 1 << 20


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder, made if it is missing, for the time of a `with`.

    Args:
        shared: others that share it may hold it too: processes that each make stages of their own.

    The system drops the lock of a process that ends, however it ends, so what a killed run left
    behind is taken over. Of another machine's lock on a shared disk the file alone tells.

    Raises:
        InputError: another process holds it; names its number, machine and start.
        OSError: nothing can be written there.
    """
    require_utf8(folder)
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give --out a folder")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    try:
        descriptor = _taken(path, shared)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    try:
        yield
    finally:
        if not shared and _is_at(descriptor, path):
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Try, before hours of work, whether what comes of it can be written to a folder.

    What is made for that is taken away again.

    Raises:
        InputError: it is a file.
        OSError: nothing can be written there; says why.
    """
    require_utf8(folder)
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give --out a folder")
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lorascope-") as file:
            file.write(b"tried")
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()


def contents(folder: Path) -> list[Path]:
    """What stands in a folder besides its lock; nothing where there is none."""
    return [path for path in folder.iterdir() if path.name != LOCK] if folder.is_dir() else []


def _taken(path: Path, shared: bool) -> int:
    """An open descriptor of the lock file, locked; with this process's name in it if not shared."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
        try:
            _lock(descriptor, path, shared)
            # Whoever held it before may have removed the file between the two calls.
            if _is_at(descriptor, path):
                if not shared:
                    _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path, shared: bool) -> None:
    holder = _holder(descriptor)
    try:
        _system_lock(descriptor, shared)
    except BlockingIOError:
        raise InputError(
            f"{path.parent}: {_named(holder)} is at work on it; wait until it ends, or give --out "
            "another folder"
        ) from None
    except OSError:
        # A disk without locks: the file alone tells, of this machine's processes too.
        if holder.get("host") == socket.gethostname() and not is_running(int(holder["pid"])):
            return
        if not holder:
            return
    else:
        if not holder or holder.get("host") == socket.gethostname():
            return
    raise InputError(
        f"{path.parent}: {_named(holder)} may be at work on it; if that has ended, remove {path}"
    )


def _system_lock(descriptor: int, shared: bool) -> None:
    """Lock an open file without waiting.

    Raises:
        BlockingIOError: another process holds it.
        OSError: this disk has no locks.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return
    # Windows locks bytes, for one holder: one far behind the name, which others must be able to
    # read. Who shares the folder holds it for a moment only, to see that no one holds it alone.
    import msvcrt

    os.lseek(descriptor, _BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
        raise BlockingIOError from None
    if shared:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)


def _holder(descriptor: int) -> dict[str, str | int]:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = json.loads(os.read(descriptor, 4096))
        return {
            "pid": int(found["pid"]),
            "host": str(found["host"])[:200],
            "since": str(found["since"])[:40],
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _named(holder: dict[str, str | int]) -> str:
    if not holder:
        return "another process"
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"


def _sign(descriptor: int) -> None:
    name = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
    os.ftruncate(descriptor, 0)
    with os.fdopen(descriptor, "r+b", buffering=0, closefd=False) as file:
        file.seek(0)
        file.write((json.dumps(name) + "\n").encode())


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
