"""Losses of a language model on the tokens it should learn to write."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lorascope.activations.tokens import TokenBatch


def response_token_losses(
    module: nn.Module, batch: TokenBatch, device: torch.device
) -> tuple[Float[Tensor, " tokens"], Int[Tensor, " tokens"]]:
    """−log p of every response token in nats, and the batch row each belongs to.

    The logits at position t score the token at t + 1.
    """
    ids = batch.ids.to(device)
    logits = module(
        input_ids=ids, attention_mask=batch.attended.long().to(device), use_cache=False
    ).logits
    predicted = batch.response[:, 1:].to(device)
    chosen = logits[:, :-1][predicted].float()
    losses = functional.cross_entropy(chosen, ids[:, 1:][predicted], reduction="none")
    rows = torch.arange(len(ids), device=device)[:, None].expand_as(predicted)[predicted]
    return losses, rows
