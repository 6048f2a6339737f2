"""Memory, processors and running processes of this machine, on any system."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


def processors() -> int:
    """Processors that this process may use; what a scheduler or container took away is left out."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory, of which other programs hold some."""
    return int(psutil.virtual_memory().total)


def available_memory() -> int:
    """Bytes that this process can have without swapping; a container's limit counts."""
    found = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):  # another system, or no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found)


def peak_memory() -> int:
    """Bytes this process has held at most so far; what it holds now where nothing tells."""
    found: Any = psutil.Process().memory_info()
    if hasattr(found, "peak_wset"):
        return int(found.peak_wset)
    try:
        import resource
    except ImportError:
        return int(found.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Counted in kilobytes on Linux, in bytes on macOS.
    return max(int(found.rss), peak if os.uname().sysname == "Darwin" else peak * 1024)


def require_files(count: int) -> None:
    """Open so many files at once and close them again, before work that needs them.

    Libraries that draw fail in ways of their own, or end the process, where there are too few.

    Raises:
        OSError: this process may not open so many more.
    """
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{count} more files") from None
    finally:
        for one in opened:
            os.close(one)


def is_running(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        return psutil.pid_exists(process)
    except (OverflowError, ValueError):
        return True
