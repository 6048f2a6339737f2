"""How fast this device multiplies matrices, measured in a fraction of a second."""

from __future__ import annotations

import time
from functools import cache

import torch

_SECONDS = 0.25
_SIDE = {"cpu": 768, "cuda": 8192}
_FEWEST = 3


def device_of(wanted: str) -> str:
    """The kind of device that a study's setting means here."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted).type


@cache
def product_speed(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of square matrix products, the best of a few.

    On a CPU the processor's own time counts, so that other programs that run at the moment do not:
    what a study takes on a machine that is shared is longer by as much as it is shared.

    Args:
        device: "cpu" or "cuda".
        dtype: float32, or the type whose products are asked for.
    """
    side = _SIDE.get(device, 1024)
    # Values have no part in the speed; ones keep low precision from overflowing.
    a = torch.ones(side, side, dtype=dtype, device=device)
    out = torch.empty_like(a)
    clock = _processor_time if device == "cpu" else time.perf_counter
    best, tries, begun = float("inf"), 0, time.perf_counter()
    torch.mm(a, a, out=out)
    _wait(device)
    while tries < _FEWEST or time.perf_counter() - begun < _SECONDS:
        start = clock()
        torch.mm(a, a, out=out)
        _wait(device)
        best, tries = min(best, clock() - start), tries + 1
    return 2 * side**3 / best


def _processor_time() -> float:
    """Seconds of this process, shared out over the threads that products run on."""
    return time.process_time() / torch.get_num_threads()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
