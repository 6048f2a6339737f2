"""Amplified samples: contrastive decoding between the base and an adapter, many rows at once.

The next token comes from logits_adapted + a · (logits_adapted − logits_base), among tokens that
the adapted model gives at least a share of what it gives its best token (Li et al. 2022,
arXiv 2210.15097; for what a fine-tune learned: arXiv 2605.25902).

All variants go on together, one forward pass each a step: rows of every prompt and strength, and of
the base the rows that an amplified row is held against. Each variant keeps its own cache. The noise
of the sampling is one for each prompt and step, the same for every variant and strength: where two
variants foresee the same, they say the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from lorascope.errors import InputError
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.load import padding_id
from lorascope.randomness import generator
from lorascope.reading.prompts import Prompt
from lorascope.reading.settings import Reading


@dataclass(frozen=True)
class Amplification:
    """Whose continuations: a variant, and the strength a by which it is amplified."""

    variant: str
    strength: float = 0.0

    @property
    def held_against_base(self) -> bool:
        """Whether the base has to be run beside it."""
        return self.variant != BASE and self.strength != 0


@torch.no_grad()
def decode(
    model: AdaptedModel,
    prompts: Sequence[Prompt],
    conditions: Sequence[Amplification],
    settings: Reading,
    advance: Callable[[int], object] = lambda steps: None,
) -> list[list[list[int]]]:
    """Token ids by prompt and condition, without the token that ends a text.

    Args:
        advance: told of every step; `settings.tokens` in all.

    Raises:
        InputError: a prompt leaves no room for that many tokens.
    """
    _check_room(model, prompts, settings)
    readers = _readers(model, prompts, conditions)
    endings = torch.tensor(sorted(_endings(model)), dtype=torch.long, device=model.device)
    random = [generator(settings.seed, "decoding", n) for n in range(len(prompts))]
    shape = (len(prompts), len(conditions))
    ended = torch.zeros(shape, dtype=torch.bool, device=model.device)
    written: list[Tensor] = []
    for step in range(settings.tokens):
        if written and bool(ended.all()):
            advance(settings.tokens - step)
            break
        latest = written[-1] if written else None
        logits = {variant: reader.read(latest) for variant, reader in readers.items()}
        noise = _noise(random, model.vocab_size, settings).to(model.device)
        chosen = torch.zeros(shape, dtype=torch.long, device=model.device)
        for column, condition in enumerate(conditions):
            own = readers[condition.variant].rows(logits[condition.variant], column)
            base = None
            if condition.held_against_base:
                base = readers[BASE].rows(logits[BASE], column)
            scores = amplified(own, base, condition.strength, settings.floor)
            chosen[:, column] = _chosen(scores, noise, settings.temperature)
        ended |= torch.isin(chosen, endings)
        written.append(chosen)
        advance(1)
    return _cut(torch.stack(written, dim=-1), endings)


def amplified(
    adapted: Float[Tensor, "rows vocab"],
    base: Float[Tensor, "rows vocab"] | None,
    strength: float,
    floor: float,
) -> Float[Tensor, "rows vocab"]:
    """adapted + strength · (adapted − base); −inf where p_adapted < floor · max p_adapted."""
    possible: Bool[Tensor, "rows vocab"] = adapted >= adapted.max(1, keepdim=True).values + (
        torch.tensor(floor, device=adapted.device).log()
    )
    scores = adapted if base is None else adapted + strength * (adapted - base)
    return scores.masked_fill(~possible, -torch.inf)


def texts(model: AdaptedModel, found: Sequence[Sequence[Sequence[int]]]) -> list[list[str]]:
    """What `decode` found as text, without special tokens."""
    decoded = model.tokenizer.batch_decode
    return [list(decoded([list(ids) for ids in row], skip_special_tokens=True)) for row in found]


class _Reader:
    """One variant and the rows it reads, prompt by prompt; what they have read is in its cache."""

    def __init__(
        self, model: AdaptedModel, variant: str, prompts: Sequence[Prompt], columns: list[int]
    ) -> None:
        self.model, self.variant, self.columns = model, variant, columns
        self.ids, self.attended = _padded(prompts, padding_id(model.tokenizer))
        self.cache: Any = None

    def rows(self, logits: Float[Tensor, "rows vocab"], column: int) -> Float[Tensor, "p vocab"]:
        """The rows of one condition, a prompt each."""
        return logits[self.columns.index(column) :: len(self.columns)]

    def read(self, latest: Int[Tensor, "prompts conditions"] | None) -> Tensor:
        """Float32 logits after the latest token of each row; after the prompts at first."""
        several = len(self.columns)
        if latest is None:
            # Rows of one prompt are alike until something is written.
            return self._forward(self.ids).repeat_interleave(several, 0)
        new = latest[:, self.columns].reshape(-1, 1)
        if len(self.ids) != len(new):
            self._spread(several)
        self.ids = torch.cat([self.ids, new.cpu()], 1)
        self.attended = torch.cat([self.attended, torch.ones_like(new).cpu()], 1)
        return self._forward(new if self.cache is not None else self.ids)

    def _spread(self, several: int) -> None:
        self.ids = self.ids.repeat_interleave(several, 0)
        self.attended = self.attended.repeat_interleave(several, 0)
        if self.cache is not None:
            self.cache.batch_repeat_interleave(several)

    def _forward(self, new: Int[Tensor, "rows seq"]) -> Tensor:
        device = self.model.device
        with self.model.variant(self.variant) as module:
            taken = inspect.signature(module.forward).parameters
            given: dict[str, Any] = {"use_cache": True}
            if self.cache is None:
                self.cache = DynamicCache(config=module.config)
            given["past_key_values"] = self.cache
            if "position_ids" in taken:
                places = (self.attended.cumsum(1) - 1).clamp(min=0)
                given["position_ids"] = places[:, -new.shape[1] :].to(device)
            if "logits_to_keep" in taken:
                given["logits_to_keep"] = 1
            found = module(
                input_ids=new.to(device), attention_mask=self.attended.to(device), **given
            )
        logits: Tensor = found.logits[:, -1].float()
        return logits


def _readers(
    model: AdaptedModel, prompts: Sequence[Prompt], conditions: Sequence[Amplification]
) -> dict[str, _Reader]:
    columns: dict[str, list[int]] = {}
    for column, condition in enumerate(conditions):
        columns.setdefault(condition.variant, []).append(column)
        if condition.held_against_base:
            columns.setdefault(BASE, []).append(column)
    return {variant: _Reader(model, variant, prompts, own) for variant, own in columns.items()}


def _padded(prompts: Sequence[Prompt], padding: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the left."""
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), padding)
    attended = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
        attended[row, width - len(prompt.ids) :] = 1
    return ids, attended


def _noise(
    random: Sequence[torch.Generator], vocabulary: int, settings: Reading
) -> Float[Tensor, "prompts vocab"]:
    """Gumbel noise: the largest of logits and noise is a sample of their softmax."""
    shape = (len(random), vocabulary)
    if settings.temperature == 0:
        return torch.zeros(shape)
    drawn = [torch.empty(vocabulary).exponential_(generator=one) for one in random]
    return torch.stack(drawn).log().neg()


def _chosen(
    scores: Float[Tensor, "rows vocab"], noise: Float[Tensor, "rows vocab"], temperature: float
) -> Int[Tensor, " rows"]:
    return (scores / temperature + noise if temperature else scores).argmax(1)


def _endings(model: AdaptedModel) -> set[int]:
    configured = getattr(model.module.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {id for id in (model.tokenizer.eos_token_id, *listed) if isinstance(id, int)}


def _cut(written: Int[Tensor, "p c t"], endings: Int[Tensor, " e"]) -> list[list[list[int]]]:
    ends = torch.isin(written, endings).cumsum(-1) > 0
    return [
        [ids[~stop].tolist() for ids, stop in zip(row, stops, strict=True)]
        for row, stops in zip(written.cpu(), ends.cpu(), strict=True)
    ]


def _check_room(model: AdaptedModel, prompts: Sequence[Prompt], settings: Reading) -> None:
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    if len(longest.ids) + settings.tokens > model.context_length:
        raise InputError(
            f'prompt "{longest.text[:60]}" has {len(longest.ids)} tokens, {settings.tokens} are to '
            f"follow and the model takes {model.context_length}; give shorter ones or fewer tokens"
        )
