"""Losses of a language model on the tokens it should learn to write."""

from __future__ import annotations

import inspect
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from lorascope.activations.tokens import TokenBatch
from lorascope.models.sending import places

# Scores that are copied at once.
_AT_ONCE = 2**24


class ResponseTokens(NamedTuple):
    """The response tokens of a batch, in order.

    Attributes:
        losses: −log p of each, nats.
        rows: the batch row it belongs to.
        likeliest: whether no other token is likelier.
    """

    losses: Float[Tensor, " tokens"]
    rows: Int[Tensor, " tokens"]
    likeliest: Bool[Tensor, " tokens"]


def response_token_losses(
    module: nn.Module, batch: TokenBatch, device: torch.device
) -> tuple[Float[Tensor, " tokens"], Int[Tensor, " tokens"]]:
    """−log p of every response token in nats, and the batch row each belongs to."""
    found = response_tokens(module, batch, device)
    return found.losses, found.rows


def response_tokens(module: nn.Module, batch: TokenBatch, device: torch.device) -> ResponseTokens:
    """Every response token as the model scores it.

    The logits at position t score the token at t + 1. Where the model lets them be chosen, logits
    are computed only from the first to the last position that predicts a response token.
    """
    ids, mask = batch.inputs(device)
    predicted = batch.response[:, 1:]
    positions = predicted.any(0).nonzero().squeeze(1)
    if not len(positions):
        nothing = torch.zeros(0, device=device)
        return ResponseTokens(nothing, nothing.long(), nothing.bool())
    first, last = int(positions[0]), int(positions[-1]) + 1
    arguments: dict[str, Tensor] = {}
    if _chooses_logits(module):
        arguments["logits_to_keep"] = torch.arange(first, last, device=device)
    logits = module(input_ids=ids, attention_mask=mask, use_cache=False, **arguments).logits
    kept = logits if arguments else logits[:, first:last]
    rows, columns = places(predicted[:, first:last], device)
    targets = ids[:, 1:][:, first:last][rows, columns]
    # Without gradients a part at a time: copies of all scores over a large vocabulary are most of
    # what a pass takes.
    size = len(rows) if torch.is_grad_enabled() else max(1, _AT_ONCE // kept.shape[-1])
    parts = []
    for row, column, target in zip(*(t.split(size) for t in (rows, columns, targets)), strict=True):
        scores = kept[row, column].float()
        losses = functional.cross_entropy(scores, target, reduction="none")
        parts.append((losses, scores.argmax(-1) == target))
    losses, likeliest = map(torch.cat, zip(*parts, strict=True))
    return ResponseTokens(losses, rows, likeliest)


def _chooses_logits(module: nn.Module) -> bool:
    """Whether the model under any adapter takes `logits_to_keep`."""
    base = module.get_base_model() if isinstance(module, PeftModel) else module
    return "logits_to_keep" in inspect.signature(base.forward).parameters
