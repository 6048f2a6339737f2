"""Conditions a model runs under: each is something to be within while it runs.

Splices are in `splicing`; adapters of an `AdaptedModel` are switched by its `variant`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch
from lorascope.models.hooks import replace
from lorascope.models.sites import Site


class Condition(Protocol):
    """A way of running the model: something to be within while it runs."""

    def __call__(self) -> AbstractContextManager[Any]: ...


class Begin(Protocol):
    """Where all passes over a batch begin: something to be within while they run."""

    def __call__(self, batch: TokenBatch, /) -> AbstractContextManager[None]: ...


def whole(_batch: TokenBatch, /) -> AbstractContextManager[None]:
    """Passes from the first block on."""
    return nullcontext()


@contextmanager
def without_adapter(module: nn.Module) -> Iterator[None]:
    """Within the `with`, PEFT's adapters are off; a model without any stays as it is."""
    if not isinstance(module, PeftModel):
        yield
        return
    module.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        module.base_model.enable_adapter_layers()


@contextmanager
def steered(
    module: nn.Module,
    site: Site,
    direction: Float[Tensor, " d"],
    alpha: float,
    along: Float[Tensor, " d"] | None = None,
) -> Iterator[None]:
    """Within the `with`, the stream at `site` is x + α (x·v) u, after what stands there already.

    Args:
        direction: v, of unit norm.
        along: u, of unit norm; v by default.
    """

    def change(x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        v = direction.to(x)
        u = v if along is None else along.to(x)
        return x + alpha * (x @ v)[..., None] * u

    with replace(module, site, change):
        yield
