"""Cosines between sets of directions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.geometry.precision import at_least_single


def unit_rows(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows scaled to unit norm, float32 (float64 stays); zero rows stay zero."""
    x = at_least_single(x)
    norms = x.norm(dim=-1, keepdim=True)
    return x / torch.where(norms > 0, norms, 1.0)


def max_cosine(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], chunk: int = 512
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """For each row of `a` the largest cosine with a row of `b`, and that row's index.

    Signed: an opposite direction counts −1. A zero row has cosine 0 with everything. Exact in
    float32; never more than chunk × m cosines in memory. ValueError where a set is empty of rows
    to compare with or the widths differ.
    """
    if a.shape[-1] != b.shape[-1] or not len(b):
        raise ValueError(f"cannot compare rows of shapes {tuple(a.shape)} and {tuple(b.shape)}")
    targets = unit_rows(b.float()).T
    values = torch.empty(len(a), dtype=torch.float32, device=a.device)
    indices = torch.empty(len(a), dtype=torch.long, device=a.device)
    for start in range(0, len(a), chunk):
        rows = slice(start, start + chunk)
        best = (unit_rows(a[rows].float()) @ targets).max(dim=1)
        values[rows], indices[rows] = best.values.clamp(-1.0, 1.0), best.indices
    return values, indices
