"""The base's activations on probe text, streamed once through the updates of every adapter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import TokenBatch, Window, pad, windows
from lorascope.errors import InputError
from lorascope.models.load import padding_id
from lorascope.progress import Advance
from lorascope.resembling.products import InnerProducts, Stack
from lorascope.resembling.settings import ResembleSettings

# Texts of a pass; of each pass null adapters are drawn anew.
_TOGETHER = 128


class Probe:
    """Texts as tokens, one window a document.

    Attributes:
        documents: how many have tokens that count.
        tokens: tokens that count.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: ResembleSettings) -> None:
        texts = read_documents(settings.texts, settings.documents)
        first: dict[int, Window] = {}
        for window in windows(texts, tokenizer, settings.tokens):
            first.setdefault(window.document, window)
        chosen = list(first.values())
        parts = [chosen[i : i + _TOGETHER] for i in range(0, len(chosen), _TOGETHER)]
        self.batches = [pad(part, tokenizer, padding_id(tokenizer)) for part in parts]
        self.documents = sum(int(batch.kept.any(1).sum()) for batch in self.batches)
        self.tokens = sum(int(batch.kept.sum()) for batch in self.batches)
        if self.documents < 2:
            raise InputError("the texts hold fewer than two documents with tokens: give more")


@torch.no_grad()
def in_function(
    model: PreTrainedModel,
    stacks: Sequence[Stack],
    n: int,
    probe: Probe,
    settings: ResembleSettings,
    advance: Advance,
) -> InnerProducts:
    """Σ over tokens that count of ⟨ΔW_i x, ΔW_j x⟩, modules added up, by document.

    Raises:
        InputError: the model lacks a module that an adapter acts on, or of another width.
    """
    modules = {stack.path: _module(model, stack) for stack in stacks}
    found = InnerProducts(n, settings.draws, probe.documents)
    below = _body(model, stacks)
    begun = 0
    for batch in probe.batches:
        kept = batch.kept
        rows = kept.any(1).long().cumsum(0) - 1 + begun
        documents = rows[:, None].expand_as(kept)[kept]
        with ExitStack() as hooks:
            for stack in stacks:
                look = partial(_add, found, stack, batch, documents, settings, advance)
                handle = modules[stack.path].register_forward_pre_hook(look)
                hooks.callback(handle.remove)
            mask = batch.attended.long().to(model.device)
            below(input_ids=batch.ids.to(model.device), attention_mask=mask, use_cache=False)
        begun += int(kept.any(1).sum())
    return found


def _module(model: PreTrainedModel, stack: Stack) -> nn.Module:
    try:
        module = model.get_submodule(stack.path)
    except AttributeError:
        raise InputError(
            f"the base model has no module {stack.path}: give the base of these adapters as --model"
        ) from None
    weight = getattr(module, "weight", None)
    wanted = {stack.B.shape[0], stack.A.shape[1]}
    if not isinstance(weight, Tensor) or set(weight.shape) != wanted:
        shape = tuple(getattr(weight, "shape", ()))
        raise InputError(
            f"{stack.path} has shape {shape} in the base model, the update "
            f"{(stack.B.shape[0], stack.A.shape[1])}: give the base of these adapters as --model"
        )
    return module


def _body(model: PreTrainedModel, stacks: Sequence[Stack]) -> nn.Module:
    """The model without its head, unless an update is of the head: logits are large."""
    prefix = f"{model.base_model_prefix}."
    if all(stack.path.startswith(prefix) for stack in stacks):
        body = model.base_model
        assert isinstance(body, nn.Module)
        return body
    return model


def _add(
    found: InnerProducts,
    stack: Stack,
    batch: TokenBatch,
    documents: Tensor,
    settings: ResembleSettings,
    advance: Advance,
    module: nn.Module,
    inputs: tuple[Any, ...],
) -> None:
    """Add one module's part: its inputs are `inputs[0]`, [batch, seq, in] or token ids."""
    given = inputs[0].detach()
    one_hot = isinstance(module, nn.Embedding)
    kept = given[batch.kept.to(given.device)]
    # Reduced where the model lies; from here on everything is small.
    x = kept.cpu() if one_hot else kept.float()
    Z = _through(stack.A, x, one_hot)
    n = found.each.shape[1]
    for document in documents.unique().tolist():
        z = Z[documents == document]
        found.each[document] += stack.summed(z.T @ z, n)
    for i, B, A in stack.nulls(settings.draws, settings.seed):
        draws, r, width = A.shape
        z = _through(A.reshape(draws * r, width), x, one_hot)
        apart = z.reshape(len(z), draws, r).permute(1, 0, 2)
        found.add_null(stack, i, B, (Z.T @ z, apart.mT @ apart))
    advance(1)


def _through(A: Float[Tensor, "R in"], x: Tensor, one_hot: bool) -> Float[Tensor, "rows R"]:
    """A x of every row, float64 on the CPU."""
    if one_hot:
        return A[:, x].T.double()
    return (x @ A.to(x.device).T).double().cpu()
