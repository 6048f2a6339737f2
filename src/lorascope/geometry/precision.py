"""Which precision a tensor is computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def double(x: Tensor) -> Tensor:
    """`x` in float64 on its own device; on the CPU where the device has no float64 (MPS)."""
    return _beside_float64(x).double()


def single(x: Tensor) -> Tensor:
    """`x` in float32, on the device where `double` puts it."""
    return _beside_float64(x).float()


def at_least_single(x: Tensor) -> Tensor:
    """`x` in float32, or float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()


def bfloat16_pays(*tensors: Tensor) -> bool:
    """Whether products of these are quicker in bfloat16 while sums stay in float32.

    On CPUs with instructions for it. GPUs are quick enough in float32 for what is done here.
    """
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return bool(has_instructions) and all(x.device.type == "cpu" for x in tensors)


def _beside_float64(x: Tensor) -> Tensor:
    return x.cpu() if x.device.type == "mps" else x
