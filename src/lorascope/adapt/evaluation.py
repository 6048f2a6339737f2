"""How a model does with and without dictionaries and adapters, on the same held-out tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch, Window, batches
from lorascope.adapt.divergence import Direction, token_divergences, token_losses
from lorascope.adapt.head import Head, final_states
from lorascope.errors import InputError
from lorascope.measures.outputs import Scored, scored
from lorascope.models.load import padding_id

BATCH_TOKENS = 4096


class Way(Protocol):
    """A way of running the model: something to be within while it runs."""

    def __call__(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One way of running the model, summed by document.

    Attributes:
        loss: −log p of the tokens that came, nats.
        kl: from the original's next-token distributions, nats.
        tokens: scored tokens.
    """

    loss: Float[Tensor, " documents"]
    kl: Float[Tensor, " documents"]
    tokens: Float[Tensor, " documents"]

    @property
    def mean_loss(self) -> float:
        """Cross-entropy, nats/token."""
        return float(self.loss.sum() / self.tokens.sum())

    @property
    def mean_kl(self) -> float:
        """KL, nats/token."""
        return float(self.kl.sum() / self.tokens.sum())


@torch.no_grad()
def evaluate(
    module: nn.Module,
    tokenizer: Any,
    windows: Sequence[Window],
    original: Way,
    ways: Mapping[str, Way],
    *,
    direction: Direction = "spliced_original",
    products: torch.dtype = torch.float32,
    head: Head | None = None,
    keep_special: bool = False,
) -> dict[str, Evaluated]:
    """Every way on the same tokens: those predicted at a position that is not special.

    Args:
        original: the way the others are compared with, by KL.
        direction: of that KL, the way in the place of the spliced model.
        products: type of the matrix products.
        head: of the model, where it is known already.
        keep_special: score special tokens too.

    Raises:
        InputError: no token to score.
    """
    head = head or Head.of(module)
    count = max((window.document for window in windows), default=-1) + 1
    sums = {name: torch.zeros(3, count, dtype=torch.float64) for name in ways}
    for batch, where in _scored(tokenizer, windows, keep_special):
        reference = _states(module, batch, where, original, products)
        for name, way in ways.items():
            states = _states(module, batch, where, way, products)
            with torch.autocast(states.device.type, products, products != torch.float32):
                kl = token_divergences(states, reference, head, direction)
                loss = token_losses(states, where.targets, head)
            for row, values in zip(sums[name], (loss, kl, torch.ones_like(loss)), strict=True):
                row.index_add_(0, where.documents, values.double().cpu())
    found = {name: Evaluated(*each) for name, each in sums.items()}
    if not all(float(one.tokens.sum()) for one in found.values()):
        raise InputError("no held-out token to score: give texts of at least two tokens")
    return found


def _scored(
    tokenizer: Any, windows: Sequence[Window], keep_special: bool
) -> Iterator[tuple[TokenBatch, Scored]]:
    for batch in batches(windows, tokenizer, padding_id(tokenizer), BATCH_TOKENS):
        where = scored(batch, False, keep_special)
        if where is not None:
            yield batch, where


def _states(
    module: nn.Module, batch: TokenBatch, where: Scored, way: Way, products: torch.dtype
) -> Float[Tensor, "tokens d"]:
    device = module.get_input_embeddings().weight.device  # type: ignore[operator]
    ids, mask = batch.ids.to(device), batch.attended.long().to(device)
    with way(), torch.autocast(device.type, products, products != torch.float32):
        states = final_states(module, ids, mask)
    return states[:, :-1][where.predicting.to(states.device)]
