"""Amplified samples: contrastive decoding between the base and an adapter, many rows at once.

The next token comes from logits_adapted + a · (logits_adapted − logits_base), among tokens that
the adapted model gives at least a share of what it gives its best token (Li et al. 2022,
arXiv 2210.15097; for what a fine-tune learned: arXiv 2605.25902).

All variants go on together, one forward pass each a step: rows of every prompt and strength, and of
the base the rows that an amplified row is held against. Each variant keeps its own cache. The noise
of the sampling is one for each prompt and step, the same for every variant and strength: where two
variants foresee the same, they say the same. A variant from which something is taken out
(`removing`) is read as a variant of its own; what latents write is told from the base's stream
after the same tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from lorascope.errors import InputError
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.hooks import replace
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.reading.prompts import Prompt
from lorascope.reading.removing import Modules, Reads, TakenLatents, left_out
from lorascope.reading.settings import Reading


@dataclass(frozen=True)
class Amplification:
    """Whose continuations: a variant, and the strength a by which it is amplified.

    Attributes:
        without: what is taken out of the adapter's effect.
    """

    variant: str
    strength: float = 0.0
    without: TakenLatents | Modules | None = None

    @property
    def held_against_base(self) -> bool:
        """Whether the base has to be run beside it."""
        return self.variant != BASE and (
            self.strength != 0 or isinstance(self.without, TakenLatents)
        )

    @property
    def group(self) -> tuple[str, Reads | Modules | None]:
        """Conditions of one group are rows of the same forward passes."""
        own = self.without
        return self.variant, own.reads if isinstance(own, TakenLatents) else own


@torch.no_grad()
def decode(
    model: AdaptedModel,
    prompts: Sequence[Prompt],
    conditions: Sequence[Amplification],
    settings: Reading,
    advance: Callable[[int], object] = lambda steps: None,
    observe: Callable[[int, Tensor, Tensor, Tensor], object] | None = None,
) -> list[list[list[int]]]:
    """Token ids by prompt and condition, without the token that ends a text.

    Args:
        advance: told of every step; `settings.tokens` in all.
        observe: shown at every step, of each condition held against the base: its number, its
            logits, the base's, and which prompts' continuations go on.

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
        logits = {group: reader.read(latest) for group, reader in readers.items()}
        noise = _noise(random, model.vocab_size, settings).to(model.device)
        chosen = torch.zeros(shape, dtype=torch.long, device=model.device)
        for column, condition in enumerate(conditions):
            group, base = condition.group, None
            own = readers[group].rows(logits[group], column)
            if condition.held_against_base:
                base = readers[_BASE].rows(logits[_BASE], column)
                if observe is not None:
                    observe(column, own, base, ~ended[:, column])
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


_Group = tuple[str, Reads | Modules | None]
_BASE: _Group = (BASE, None)


@dataclass(eq=False)
class _Reader:
    """One variant and the rows it reads, prompt by prompt; what they have read is in its cache.

    Attributes:
        columns: numbers of the conditions that are its rows.
        without: of each column the latents taken out.
        base: the base's reader, of which the rows of these columns are read before.
        sites: where its own streams at the newest tokens are kept.
    """

    model: AdaptedModel
    group: _Group
    columns: list[int]
    without: list[tuple[int, ...]]
    ids: Tensor
    attended: Tensor
    base: _Reader | None = None
    sites: set[Site] = field(default_factory=set)
    streams: dict[Site, Tensor] = field(default_factory=dict)
    cache: Any = None

    def rows(self, logits: Float[Tensor, "rows vocab"], column: int) -> Float[Tensor, "p vocab"]:
        """The rows of one condition, a prompt each."""
        return logits[self.columns.index(column) :: len(self.columns)]

    def read(self, latest: Int[Tensor, "prompts conditions"] | None) -> Tensor:
        """Float32 logits after the latest token of each row; after the prompts at first."""
        several = len(self.columns)
        if latest is None:
            if isinstance(self.group[1], Reads):
                self._spread(several)
                return self._forward(self.ids)
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
        with self.model.variant(self.group[0]) as module, self._changed(module, new):
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

    @contextmanager
    def _changed(self, module: Any, new: Int[Tensor, "rows seq"]) -> Iterator[None]:
        """Streams are kept at the sites, and taken out is what is to be."""
        variant, without = self.group
        with ExitStack() as stack:
            for site in self.sites:
                stack.enter_context(replace(module, site, self._keep(site)))
            if isinstance(without, Modules):
                stack.enter_context(left_out(self.model, variant, without))
            elif without is not None:
                assert self.base is not None
                base, kept = self.base.stream(without.site, self.columns), self._kept(new)
                numbers = [
                    own for _ in range(len(new) // len(self.columns)) for own in self.without
                ]

                def take_out(stream: Tensor) -> Tensor:
                    written = without.written(stream, base, numbers, kept)
                    return stream.float() - written.to(stream.device)

                stack.enter_context(replace(module, without.site, take_out))
            yield

    def _keep(self, site: Site) -> Callable[[Tensor], Tensor]:
        def keep(stream: Tensor) -> Tensor:
            self.streams[site] = stream
            return stream

        return keep

    def stream(self, site: Site, columns: Sequence[int]) -> Float[Tensor, "rows seq d"]:
        """The stream at the newest tokens, in rows of some of the columns."""
        found, several = self.streams[site], len(self.columns)
        if self._unspread:
            return found.repeat_interleave(len(columns), 0)
        places = [self.columns.index(column) for column in columns]
        return found.unflatten(0, (-1, several))[:, places].flatten(0, 1)

    @property
    def _unspread(self) -> bool:
        """Whether the newest tokens were those of the prompts, a row each."""
        return self.streams[next(iter(self.sites))].shape[1] == self.ids.shape[1]

    def _kept(self, new: Int[Tensor, "rows seq"]) -> Bool[Tensor, "rows seq"]:
        """Where latents are taken out: at tokens of the text, not at special ones."""
        special = torch.tensor(sorted(self.model.tokenizer.all_special_ids), dtype=torch.long)
        attended = self.attended[:, -new.shape[1] :].bool()
        return attended & ~torch.isin(new.cpu(), special)


def _readers(
    model: AdaptedModel, prompts: Sequence[Prompt], conditions: Sequence[Amplification]
) -> dict[_Group, _Reader]:
    """Every group's reader, the base's first."""
    columns: dict[_Group, list[int]] = {_BASE: []}
    for column, condition in enumerate(conditions):
        columns.setdefault(condition.group, []).append(column)
        if condition.held_against_base:
            columns[_BASE].append(column)
    found: dict[_Group, _Reader] = {}
    for group, own in columns.items():
        without = [
            one.numbers for c in own if isinstance(one := conditions[c].without, TakenLatents)
        ]
        if own:
            padded = _padded(prompts, padding_id(model.tokenizer))
            found[group] = _Reader(model, group, own, without, *padded, found.get(_BASE))
    for _, taken in found:
        if isinstance(taken, Reads):
            found[_BASE].sites.add(taken.site)
    return found


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
