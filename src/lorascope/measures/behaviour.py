"""What the adapter does to the model's own loss, and to what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.activations.shards import BASE
from lorascope.activations.text import Document
from lorascope.activations.tokens import TokenBatch, Window, batches, prompt_of
from lorascope.models.adapted import AdaptedModel
from lorascope.models.load import padding_id
from lorascope.outputs.responses import response_token_losses
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import BASE_MODEL
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import or_point

# New tokens of a sample.
SAMPLED_TOKENS = 60

DocumentLosses = tuple[Float[Tensor, " documents"], Float[Tensor, " documents"]]


class VariantLosses:
    """Response losses of every variant, gathered from batches as they go through the model.

    Args:
        documents: how many documents the batches' windows are of.
    """

    def __init__(self, documents: int) -> None:
        self._count = documents
        self._found: dict[str, DocumentLosses] = {}

    def take(self, variant: str, module: nn.Module, batch: TokenBatch) -> None:
        """Run a batch through the model as `variant` shows it, and add its losses."""
        sums, tokens = self.of(variant)
        device = next(module.parameters()).device
        losses, rows = response_token_losses(module, batch, device)
        owners = batch.documents[rows.cpu()]
        sums.index_add_(0, owners, losses.double().cpu())
        tokens.index_add_(0, owners, torch.ones(len(owners), dtype=torch.float64))

    def of(self, variant: str) -> DocumentLosses:
        """(summed −log p in nats, number of response tokens) of every document so far."""
        if variant not in self._found:
            empty = torch.zeros(2, self._count, dtype=torch.float64)
            self._found[variant] = (empty[0], empty[1])
        return self._found[variant]


@torch.no_grad()
def document_losses(
    module: nn.Module, tokenizer: Any, found: Sequence[Window], batch_tokens: int = 4096
) -> DocumentLosses:
    """(summed −log p in nats, number of response tokens) of every document.

    Of a model as it stands, with whatever is attached to it.
    """
    losses = VariantLosses(max(window.document for window in found) + 1)
    for batch in batches(found, tokenizer, padding_id(tokenizer), batch_tokens):
        losses.take("", module, batch)
    return losses.of("")


def response_loss(base: DocumentLosses, adapted: DocumentLosses, place: Key) -> Estimate:
    """Held-out response loss of one adapter beside the base model's on the same tokens."""
    (sums, tokens), (base_sums, base_tokens) = adapted, base
    level, around = ratio(base_sums, base_tokens)
    # The same tokens under both: what documents differ by in difficulty drops out.
    _, paired = ratio(sums - base_sums, tokens)
    return Estimate(
        "response_loss",
        *ratio(sums, tokens),
        int(tokens.sum()),
        "nats/token",
        (Null(BASE_MODEL, level, *or_point(level, around), rival=True, difference=paired),),
        place,
    )


@torch.no_grad()
def continuations(
    model: AdaptedModel, documents: Sequence[Document], new_tokens: int = SAMPLED_TOKENS
) -> list[dict[str, object]]:
    """What each variant writes, greedily, after the prompts of a few documents.

    Conversations are asked through the tokenizer's chat template, as they are captured.

    No four tokens in a row are written twice. Prompts that leave no room in the model's context
    are passed over.
    """
    found: list[dict[str, object]] = []
    for document in documents:
        prompt, before = prompt_of(document, model.tokenizer)
        ids = torch.tensor([before], device=model.device)
        room = min(new_tokens, model.context_length - ids.shape[1])
        if room < 1:
            continue
        written: dict[str, str] = {}
        for variant in (BASE, *model.adapters):
            with model.variant(variant) as module:
                out = module.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=room,
                    do_sample=False,
                    no_repeat_ngram_size=4,
                    pad_token_id=padding_id(model.tokenizer),
                )
            text = model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            written[variant] = text.strip()
        base = written.pop(BASE)
        found.append({"prompt": prompt, "base": base, "adapted": written})
    return found
