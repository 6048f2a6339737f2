"""What a latent adapter reads of its examples, taken once: the adapter cannot change it.

The adapter acts after its site, so the stream it is given, and the latents active there, are the
same at every step of training. They are kept for every token that counts, latents as
(index, activation) of the active ones only: 131,072 latents cost no more than those that fire. A
training step then begins at the site and never runs the blocks before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from lorascope.activations.tokens import TokenBatch, Window, pad
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.latent_adapters.adapter import LatentAdapter, require_width
from lorascope.models.hooks import capture
from lorascope.models.interventions import resuming, returned
from lorascope.models.load import padding_id
from lorascope.models.sending import places, sent
from lorascope.models.sites import block_list, resolve_sites

BATCH_TOKENS = 4096
# Entries of one dense block of latents.
_BLOCK = 2**24


@dataclass(frozen=True, eq=False)
class ActiveLatents:
    """Latents active on some rows.

    Attributes:
        latent, value: of every active one, row after row.
        counts: how many each row has.
    """

    latent: Int[Tensor, " active"]
    value: Float[Tensor, " active"]
    counts: Int[Tensor, " rows"]

    @classmethod
    @torch.no_grad()
    def of(cls, dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> ActiveLatents:
        """Encode rows, a block at a time."""
        latent, value, counts = [], [], []
        for part in rows.split(max(1, _BLOCK // dictionary.n_latents)):
            z = dictionary.encode(part.to(dictionary.directions)).float()
            at, which = z.nonzero(as_tuple=True)
            latent.append(which.int().cpu())
            value.append(z[at, which].cpu())
            counts.append(torch.bincount(at, minlength=len(part)).int().cpu())
        if not latent:
            nothing = torch.zeros(0, dtype=torch.int32)
            return cls(nothing, torch.zeros(0), nothing)
        return cls(torch.cat(latent), torch.cat(value), torch.cat(counts))

    @classmethod
    def together(cls, parts: Sequence[ActiveLatents]) -> ActiveLatents:
        """The rows of several, one after another."""
        columns = ([getattr(p, name) for p in parts] for name in ("latent", "value", "counts"))
        return cls(*map(torch.cat, columns))

    def read(self, factor: Float[Tensor, "r n"]) -> Float[Tensor, "rows r"]:
        """z · factorᵀ; gradients reach the factor."""
        place = factor.device
        offsets = sent((self.counts.cumsum(0) - self.counts).int(), place)
        found: Tensor = functional.embedding_bag(
            sent(self.latent, place),
            factor.T.contiguous(),
            offsets,
            mode="sum",
            per_sample_weights=sent(self.value, place).to(factor.dtype),
        )
        return found

    def sums(self, weights: Float[Tensor, "rows r"], n: int) -> Float[Tensor, "n r"]:
        """zᵀ · weights: what `read` maps back."""
        owner = torch.repeat_interleave(torch.arange(len(self.counts)), self.counts)
        found = torch.zeros(n, weights.shape[1], dtype=weights.dtype)
        for start in range(0, len(self.latent), _BLOCK):
            here = slice(start, start + _BLOCK)
            active = weights[owner[here]] * self.value[here, None].to(weights)
            found.index_add_(0, self.latent[here].long(), active)
        return found


@dataclass(frozen=True, eq=False)
class Seen:
    """One window as the site has it.

    Attributes:
        stream: in the model's dtype.
        acted_on: tokens the adapter acts on.
        codes: of these tokens.
    """

    window: Window
    stream: Float[Tensor, "seq d"]
    acted_on: Bool[Tensor, " seq"]
    codes: ActiveLatents


@dataclass(frozen=True, eq=False)
class SeenBatch:
    """Some windows together; arguments of `FrozenSite.changed`.

    Attributes:
        stream: on the model's device; all else is on the CPU.
    """

    tokens: TokenBatch
    stream: Float[Tensor, "batch seq d"]
    acted_on: Bool[Tensor, "batch seq"]
    codes: ActiveLatents


class FrozenSite:
    """A frozen model, a site, and a frozen dictionary there.

    Args:
        module: the bare base model.
        special_ids: tokens that keep their stream; the tokenizer's own by default.

    Raises:
        InputError: the model lacks the site, or is of another width than the dictionary.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: Any,
        dictionary: Dictionary,
        site: str,
        special_ids: Sequence[int] | None = None,
    ) -> None:
        (self.site,) = resolve_sites(module, [site])
        require_width(module, dictionary)
        self.module, self.tokenizer = module, tokenizer
        self.dictionary = dictionary.requires_grad_(False)
        chosen = tokenizer.all_special_ids if special_ids is None else special_ids
        self.special_ids: tuple[int, ...] = tuple(sorted(set(chosen)))
        self._padding = padding_id(tokenizer)
        self._blocks: list[int | None] = []

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        found: torch.device = self.module.get_input_embeddings().weight.device
        return found

    @torch.no_grad()
    def see(self, windows: Sequence[Window]) -> list[Seen]:
        """Every window at the site, in the order given; run no deeper."""
        found: dict[int, Seen] = {}
        order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
        for part in _groups(order, windows):
            batch = pad([windows[i] for i in part], self.tokenizer, self._padding)
            mask = batch.attended.long().to(self.device)
            with (
                returned(self.module) as beside,
                capture(self.module, [self.site], attention_mask=mask) as at,
            ):
                self.module(
                    input_ids=batch.ids.to(self.device), attention_mask=mask, use_cache=False
                )
            self._blocks = beside
            acted_on = self._acted_on(batch)
            for row, index in enumerate(part):
                length = len(windows[index].ids)
                stream, marks = at[self.site][row, :length].cpu(), acted_on[row, :length]
                rows = stream[marks].to(self.dictionary.directions)
                codes = ActiveLatents.of(self.dictionary, rows)
                found[index] = Seen(windows[index], stream, marks, codes)
        return [found[i] for i in range(len(windows))]

    def batch(self, chosen: Sequence[Seen]) -> SeenBatch:
        """Windows padded on the right to a common length."""
        tokens = pad([one.window for one in chosen], self.tokenizer, self._padding)
        shape = tokens.ids.shape
        d = chosen[0].stream.shape[1]
        stream = torch.zeros(*shape, d, dtype=chosen[0].stream.dtype)
        acted_on = torch.zeros(shape, dtype=torch.bool)
        for row, one in enumerate(chosen):
            stream[row, : len(one.stream)] = one.stream
            acted_on[row, : len(one.acted_on)] = one.acted_on
        codes = ActiveLatents.together([one.codes for one in chosen])
        return SeenBatch(tokens, sent(stream, self.device), acted_on, codes)

    def changed(self, adapter: LatentAdapter, batch: SeenBatch) -> Float[Tensor, "batch seq d"]:
        """The stream after the adapter; equal to `adapter(stream, acted_on)`."""
        read, write = adapter.factors()
        change = batch.codes.read(read) @ adapter.writing(write)
        at = places(batch.acted_on, change.device)
        return batch.stream.index_put(at, change.to(batch.stream.dtype), accumulate=True)

    @contextmanager
    def going_on(self, stream: Float[Tensor, "batch seq d"]) -> Iterator[PreTrainedModel]:
        """Within the `with`, the model called with the batch's tokens goes on from this stream."""
        with resuming(self.module, self.site, stream, self._beside()):
            yield self.module

    def _beside(self) -> list[int | None]:
        """What each block returns; blocks after the site are never passed over."""
        return self._blocks[: self.site.index + 1] + [None] * (
            len(block_list(self.module)) - self.site.index - 1
        )

    def _acted_on(self, batch: TokenBatch) -> Bool[Tensor, "batch seq"]:
        special = torch.isin(batch.ids, torch.tensor(self.special_ids, dtype=torch.long))
        return batch.attended & ~special


def _groups(order: Sequence[int], windows: Sequence[Window]) -> Iterator[list[int]]:
    """Indices in groups of at most `BATCH_TOKENS` padded tokens; lengths ascend."""
    group: list[int] = []
    for index in order:
        if group and (len(group) + 1) * len(windows[index].ids) > BATCH_TOKENS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
