"""What must hold before a delta means anything: it stands above the model's own numeric noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lorascope.activations.collect import forward
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import TokenBatch, Window, pad
from lorascope.models.adapted import AdaptedModel
from lorascope.models.finer_arithmetic import in_finer_arithmetic
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import Site

# Parameters of a model that finer arithmetic is worth its time for.
COPY_LIMIT = 3_000_000_000
# What kernels raise for types that they lack.
_LACKING = (RuntimeError, NotImplementedError, TypeError)


def noise_floor(
    model: AdaptedModel, found: Sequence[Window], sites: Sequence[Site], most: int = 16
) -> dict[str, float]:
    """Mean norm of what mere arithmetic changes at each site: {site name: stream units}.

    The base runs on the same windows together and one by one, and once more in finer arithmetic
    (float64, or float32 for a model in less) where the model is small enough and its operations
    exist in that type. The larger of the two differences counts.
    """
    step = max(1, len(found) // most)
    chosen = list(found[::step][:most])
    padding = padding_id(model.tokenizer)
    together = pad(chosen, model.tokenizer, padding)
    alone = [pad([window], model.tokenizer, padding) for window in chosen]
    batched = _kept(forward(model, BASE, sites, together), together)
    singles = [_kept(forward(model, BASE, sites, one), one) for one in alone]
    floor = {
        site.name: _difference(batched[site], torch.cat([rows[site] for rows in singles]))
        for site in sites
    }
    if model.n_parameters <= COPY_LIMIT:
        exact = _finer_stream(model, sites, together)
        for site, stream in (exact or {}).items():
            floor[site.name] = max(floor[site.name], _difference(batched[site], stream))
    return floor


def _kept(stream: dict[Site, Tensor], batch: TokenBatch) -> dict[Site, Tensor]:
    return {site: h[batch.kept.to(h.device)].float().cpu() for site, h in stream.items()}


def _difference(first: Tensor, second: Tensor) -> float:
    return (first - second).norm(dim=-1).mean().item()


def _finer_stream(
    model: AdaptedModel, sites: Sequence[Site], batch: TokenBatch
) -> dict[Site, Tensor] | None:
    """The base's stream in finer arithmetic; None where its kernels have none."""
    finer = torch.float64 if model.dtype == torch.float32 else torch.float32
    ids, mask = batch.inputs(model.device)
    with model.variant(BASE) as module, in_finer_arithmetic(module, finer):
        # Fused kernels know the usual types only; written out, the same sums run in any. Attention
        # comes last: written out, it takes its softmax in float32.
        for kernels in ((), ("experts",), ("experts", "attn")):
            try:
                with _written_out(module, kernels):
                    return _kept(run_until(module, sites, ids, mask), batch)
            except (*_LACKING, AttributeError, ValueError):
                # Weights in quantised form keep their type: a ValueError.
                continue
    return None


@contextmanager
def _written_out(module: Any, kernels: Sequence[str]) -> Iterator[None]:
    """Within the `with`, "attn" and "experts", as named, run by plain sums."""
    before = {}
    for kernel in kernels:
        known = getattr(module.config, f"_{kernel}_implementation", None)
        if known is not None and hasattr(module, f"set_{kernel}_implementation"):
            before[kernel] = known
    try:
        for kernel in before:
            getattr(module, f"set_{kernel}_implementation")("eager")
        yield
    finally:
        for kernel, known in before.items():
            getattr(module, f"set_{kernel}_implementation")(known)
