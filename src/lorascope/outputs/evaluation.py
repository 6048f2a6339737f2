"""How a model does with and without dictionaries and adapters, on the same held-out tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch, Window
from lorascope.config import Direction
from lorascope.errors import InputError
from lorascope.models.sending import places
from lorascope.outputs.conditions import Begin, Condition, whole
from lorascope.outputs.divergence import scores_of_several, token_losses
from lorascope.outputs.head import Head, final_states
from lorascope.outputs.kept import Known
from lorascope.outputs.scoring import scored_batches


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One way of running the model, summed by document, and token by token.

    Attributes:
        loss: −log p of the tokens that came, nats.
        kl: from the original's next-token distributions, nats.
        tokens: scored tokens.
        losses: −log p of each scored token, nats; in the same order for all conditions.
        owners: the document of each.
    """

    loss: Float[Tensor, " documents"]
    kl: Float[Tensor, " documents"]
    tokens: Float[Tensor, " documents"]
    losses: Float[Tensor, " tokens"]
    owners: Int[Tensor, " tokens"]

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
    original: Condition,
    conditions: Mapping[str, Condition],
    *,
    direction: Direction = "spliced_original",
    products: torch.dtype = torch.float32,
    head: Head | None = None,
    keep_special: bool = False,
    known: Mapping[Condition, Known] = MappingProxyType({}),
    begin: Begin = whole,
) -> dict[str, Evaluated]:
    """Every condition on the same tokens: those predicted at a position that is not special.

    Args:
        original: what the others are compared with, by KL; among `conditions` too it is run once.
        direction: of that KL, the condition in the place of the spliced model.
        products: type of the matrix products.
        head: of the model, where it is known already.
        keep_special: score special tokens too.
        known: where the states of a condition are kept from one call to the next.
        begin: where all passes over a batch begin.

    Raises:
        InputError: no token to score.
    """
    head = head or Head.of(module)
    count = max((window.document for window in windows), default=-1) + 1
    sums = {name: torch.zeros(3, count, dtype=torch.float64) for name in conditions}
    single: dict[str, list[Tensor]] = {name: [] for name in conditions}
    owners: list[Tensor] = []

    def run(condition: Condition, batch: TokenBatch, wanted: Tensor) -> Tensor:
        with condition():
            return states_at(module, batch, wanted, products, known.get(condition))

    for batch, where in scored_batches(tokenizer, windows, keep_special=keep_special):
        owners.append(where.documents.int())
        with begin(batch):
            reference = run(original, batch, where.wanted)
            others = {  # what is the reference need not run again
                name: run(one, batch, where.wanted)
                for name, one in conditions.items()
                if one != original
            }
        with torch.autocast(reference.device.type, products, products != torch.float32):
            found = _scores(reference, others, conditions, where.targets, head, direction)
        for name, (kl, loss) in found.items():
            for row, values in zip(sums[name], (loss, kl, torch.ones_like(loss)), strict=True):
                row.index_add_(0, where.documents, values.double().cpu())
            single[name].append(loss.cpu())
    if not owners:
        raise InputError("no held-out token to score: give texts of at least two tokens")
    whose = torch.cat(owners)
    return {
        name: Evaluated(loss, kl, tokens, torch.cat(single[name]), whose)
        for name, (loss, kl, tokens) in sums.items()
    }


def _scores(
    reference: Tensor,
    others: Mapping[str, Tensor],
    conditions: Mapping[str, Condition],
    targets: Tensor,
    head: Head,
    direction: Direction,
) -> dict[str, tuple[Tensor, Tensor]]:
    """{condition: KL and loss of each token}, those that are not in `others` being the reference's
    own."""
    scores = scores_of_several(list(others.values()), reference, targets, head, direction)
    found = dict(zip(others, scores, strict=True))
    if same := conditions.keys() - others.keys():
        loss = token_losses(reference, targets, head)
        found |= dict.fromkeys(same, (torch.zeros_like(loss), loss))
    return found


def states_at(
    module: nn.Module,
    batch: TokenBatch,
    positions: Bool[Tensor, "batch seq"],
    products: torch.dtype = torch.float32,
    known: Known | None = None,
) -> Float[Tensor, "tokens d"]:
    """Final states at some positions of a batch, as the model runs just now.

    Args:
        known: where those of this way of running it are kept, without gradient.
    """
    device = module.get_input_embeddings().weight.device  # type: ignore[operator]

    def compute() -> Tensor:
        with torch.autocast(device.type, products, products != torch.float32):
            states = final_states(module, *batch.inputs(device))
        return states[places(positions, states.device)]

    return compute() if known is None else known.states(batch, positions, products, device, compute)
