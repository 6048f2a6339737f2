"""Token batches: windows of documents as the tokenizer opens a text, padded on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lorascope.activations.text import Document


@dataclass(frozen=True)
class Window:
    """One stretch of one document as token ids, at most a context long."""

    ids: list[int]
    response: list[bool]
    document: int


@dataclass(frozen=True)
class TokenBatch:
    """Windows padded on the right to a common length.

    Attributes:
        ids: token ids.
        attended: False on padding.
        special: True on BOS, EOS, PAD and the tokenizer's other special tokens.
        response: True on tokens of a response.
        documents: index of each window's document.
    """

    ids: Int[Tensor, "batch seq"]
    attended: Bool[Tensor, "batch seq"]
    special: Bool[Tensor, "batch seq"]
    response: Bool[Tensor, "batch seq"]
    documents: Int[Tensor, " batch"]

    @property
    def kept(self) -> Bool[Tensor, "batch seq"]:
        """Tokens that count: attended and not special."""
        return self.attended & ~self.special


def opening_ids(tokenizer: Any) -> list[int]:
    """The special tokens this tokenizer puts before a text of its own accord (BOS, or none)."""
    whole: list[int] = list(tokenizer("a")["input_ids"])
    plain: list[int] = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next(s for s in starts if whole[s : s + len(plain)] == plain)]


def windows(documents: Sequence[Document], tokenizer: Any, context: int) -> list[Window]:
    """Every document cut into windows of at most `context` tokens, each opened afresh.

    A response is closed by EOS where the tokenizer has one, so that adapters learn to stop.
    """
    if not documents:
        return []
    opening = opening_ids(tokenizer)
    room = context - len(opening)
    texts = [segment.text for d in documents for segment in d.segments]
    encoded = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    found: list[Window] = []
    for index, document in enumerate(documents):
        ids: list[int] = []
        response: list[bool] = []
        for segment in document.segments:
            tokens = list(next(encoded))
            if segment.response and tokenizer.eos_token_id is not None:
                tokens.append(tokenizer.eos_token_id)
            ids += tokens
            response += [segment.response] * len(tokens)
        for start in range(0, len(ids), room):
            body, marks = ids[start : start + room], response[start : start + room]
            found.append(Window(opening + body, [False] * len(opening) + marks, index))
    return found


def count_tokens(found: Sequence[Window], tokenizer: Any) -> int:
    """Tokens that will count: all but special ones."""
    special = set(tokenizer.all_special_ids)
    return sum(token not in special for window in found for token in window.ids)


def pad(chosen: Sequence[Window], tokenizer: Any, padding: int) -> TokenBatch:
    """One batch of windows, padded on the right with id `padding`."""
    length = max(len(window.ids) for window in chosen)
    shape = (len(chosen), length)
    ids = torch.full(shape, padding)
    attended = torch.zeros(shape, dtype=torch.bool)
    response = torch.zeros(shape, dtype=torch.bool)
    for row, window in enumerate(chosen):
        width = len(window.ids)
        ids[row, :width] = torch.tensor(window.ids)
        attended[row, :width] = True
        response[row, :width] = torch.tensor(window.response)
    special = torch.isin(ids, torch.tensor(sorted(tokenizer.all_special_ids)))
    documents = torch.tensor([window.document for window in chosen])
    return TokenBatch(ids, attended, special, response, documents)


def batches(
    found: Sequence[Window], tokenizer: Any, padding: int, tokens_per_batch: int
) -> Iterator[TokenBatch]:
    """Batches of at most `tokens_per_batch` padded tokens, windows of like length together."""
    order = sorted(range(len(found)), key=lambda i: len(found[i].ids))
    chosen: list[Window] = []
    for index in order:
        width = len(found[index].ids)
        if chosen and (len(chosen) + 1) * width > tokens_per_batch:
            yield pad(chosen, tokenizer, padding)
            chosen = []
        chosen.append(found[index])
    if chosen:
        yield pad(chosen, tokenizer, padding)
