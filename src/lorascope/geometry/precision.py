"""Float64 where a difference of large sums decides the number."""

from __future__ import annotations

import torch
from torch import Tensor


def double(x: Tensor) -> Tensor:
    """`x` in float64 on its own device; on the CPU where the device has no float64 (MPS)."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def at_least_single(x: Tensor) -> Tensor:
    """`x` in float32, or float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()
