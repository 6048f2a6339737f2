"""Final states that several fits need alike: those of the model they all fit to, and of splices.

A pass over the same tokens by the same weights gives the same states bit for bit, so that whoever
comes second takes them from here. What is kept is d numbers a token; scores are made of them anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.activations.tokens import TokenBatch
from lorascope.config import digest
from lorascope.machine import available_memory

# Most bytes a process keeps, and most of the memory that is free when it begins to.
KEPT_BYTES, KEPT_SHARE = 2**34, 0.25


@dataclass(eq=False)
class KeptStates:
    """States by what was run, on which tokens; in memory, until the limit is reached.

    What does not fit is computed again each time. Batches with the same tokens in another order,
    or padded to another length, are others: their arithmetic may differ in the last digit.

    Attributes:
        most: bytes; by default 16 GiB, and a quarter of what is free at first.
        size: bytes kept.
        taken: how often states were taken from here.
    """

    most: int | None = None
    size: int = field(default=0, init=False)
    taken: int = field(default=0, init=False)
    _found: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def of(self, *what: Any) -> Known:
        """Those of one way of running a model.

        Args:
            what: all that its states depend on beside tokens and the type of products: its
                weights and settings, and what stands in its stream; as `digest` takes it.
        """
        return Known(self, digest(list(what)))

    def _keep(self, key: str, states: Tensor) -> None:
        if self.most is None:
            self.most = min(KEPT_BYTES, int(KEPT_SHARE * available_memory()))
        size = states.numel() * states.element_size()
        if self.size + size <= self.most:
            self._found[key] = states.detach().cpu()
            self.size += size


@dataclass(frozen=True, eq=False)
class Known:
    """The states of one way of running a model; not to be written to."""

    store: KeptStates
    way: str

    def states(
        self,
        batch: TokenBatch,
        positions: Bool[Tensor, "batch seq"],
        products: torch.dtype,
        device: torch.device,
        compute: Callable[[], Float[Tensor, "tokens d"]],
    ) -> Float[Tensor, "tokens d"]:
        """States at some positions of a batch: those kept, else `compute`'s, which are then kept.

        Args:
            products: type of the matrix products.
            device: where they are computed.
        """
        mark = _mark((batch.ids, batch.attended, positions))
        key = digest([self.way, mark, str(products), str(device)])
        found = self.store._found.get(key)
        if found is not None:
            self.store.taken += 1
            return found.to(device)
        states = compute()
        self.store._keep(key, states)
        return states


def _mark(tensors: Sequence[Tensor]) -> str:
    """sha256 of shapes and values."""
    found = hashlib.sha256()
    for one in tensors:
        found.update(f"{one.dtype}|{tuple(one.shape)}|".encode())
        found.update(one.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
