"""Hooks on blocks: read the residual stream, or put something in its place.

Plain PyTorch forward hooks. A block may return a tensor or a tuple whose first part is the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorascope.errors import InputError
from lorascope.models.sites import Site, block_list


class _LastSiteReached(Exception):  # noqa: N818 - a signal that stops the pass, not an error
    """Raised by the hook of the deepest wanted block: the rest of the model need not run."""


class Captured(dict[Site, Tensor]):
    """What a forward pass left: {site: [batch, seq, d_model]}, detached, in the model's dtype."""


@contextmanager
def capture(
    model: nn.Module,
    sites: Iterable[Site],
    *,
    attention_mask: Int[Tensor, "batch seq"] | None = None,
    stop: bool = True,
    finite: bool = True,
) -> Iterator[Captured]:
    """Fill a `Captured` from the forward pass run inside the `with`.

    With `stop`, the pass ends once the deepest site is reached and so does the `with` body: no
    later block runs and no logits are computed. Hooks are removed however the body ends.

    Args:
        sites: where to read.
        attention_mask: 1 at real tokens; NaN and infinity are tolerated where it is 0.
        stop: end the pass after the deepest site.
        finite: refuse NaN and infinity, which asks the device once a site.

    Raises:
        InputError: a block's output is not [batch, seq, d_model], or is not finite; names the site.
    """
    wanted = sorted(set(sites))
    if not wanted:
        raise InputError("no site to capture: name at least one")
    blocks = block_list(model)
    captured = Captured()
    with ExitStack() as stack:
        for site in wanted:
            last = stop and site == wanted[-1]
            hook = partial(_record, captured, site, attention_mask, finite, last)
            stack.callback(blocks[site.index].register_forward_hook(hook).remove)
        with suppress(_LastSiteReached):
            yield captured


@torch.no_grad()
def run_until(
    model: nn.Module,
    sites: Iterable[Site],
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | None = None,
) -> dict[Site, Tensor]:
    """The residual stream at `sites`, running the model no deeper than the deepest of them.

    Returns:
        {site: [batch, seq, d_model]} in the model's dtype, without gradient.

    Raises:
        InputError: as `capture`.
    """
    with capture(model, sites, attention_mask=attention_mask) as captured:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return captured


@contextmanager
def replace(
    model: nn.Module,
    site: Site,
    function: Callable[[Float[Tensor, "batch seq d_model"]], Float[Tensor, "batch seq d_model"]],
) -> Iterator[None]:
    """Within the `with`, the stream at `site` is `function(stream)`; gradients flow through it.

    The result is cast to the stream's dtype and device.

    Raises:
        InputError: the function's result has another shape than the stream.
    """

    def hook(_block: nn.Module, _inputs: Any, output: Any) -> Any:
        hidden = _stream(output, site)
        new = function(hidden)
        if new.shape != hidden.shape:
            raise InputError(
                f"what replaces the stream at {site} has shape {tuple(new.shape)}, "
                f"the stream has {tuple(hidden.shape)}: return the same shape"
            )
        new = new.to(device=hidden.device, dtype=hidden.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = block_list(model)[site.index].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _record(
    captured: Captured,
    site: Site,
    attention_mask: Tensor | None,
    finite: bool,
    last: bool,
    _block: nn.Module,
    _inputs: Any,
    output: Any,
) -> None:
    hidden = _stream(output, site).detach()
    if finite:
        _check_finite(hidden, site, attention_mask)
    captured[site] = hidden
    if last:
        raise _LastSiteReached


def _stream(output: Any, site: Site) -> Tensor:
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise InputError(f"{site} gives {found}, not (batch, seq, d_model): it is no decoder block")
    return hidden


def _check_finite(hidden: Tensor, site: Site, attention_mask: Tensor | None) -> None:
    finite = hidden.isfinite().all(dim=-1)
    if attention_mask is not None:
        finite = finite | ~attention_mask.to(device=finite.device, dtype=torch.bool)
    if not bool(finite.all()):
        raise InputError(
            f"{site} gives NaN or infinity at {int((~finite).sum())} of {finite.numel()} tokens: "
            "load the model in float32 or bfloat16, and check its weights"
        )
