"""How fast this device multiplies matrices, measured in a fraction of a second."""

from __future__ import annotations

import time
from functools import cache

import torch

_SECONDS = 0.25
_SIDE = {"cpu": 1024, "cuda": 8192}


def device_of(wanted: str) -> str:
    """The kind of device that a study's setting means here."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted).type


@cache
def product_speed(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of square matrix products, the best of a few.

    Args:
        device: "cpu" or "cuda".
        dtype: float32, or the type whose products are asked for.
    """
    side = _SIDE.get(device, 1024)
    # Values have no part in the speed; ones keep low precision from overflowing.
    a = torch.ones(side, side, dtype=dtype, device=device)
    out = torch.empty_like(a)
    best, begun = float("inf"), time.perf_counter()
    torch.mm(a, a, out=out)
    _wait(device)
    while best == float("inf") or time.perf_counter() - begun < _SECONDS:
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
