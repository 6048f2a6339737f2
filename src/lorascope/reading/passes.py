"""Rows that are written on together: which go through the model in one pass, and what they read.

A row is a prompt under one variant, from which something may be taken out, and what was written so
far. Rows alike in all of this are one: conditions that have said the same go on as one row, and
rows from which no condition goes on are dropped. Where adapters are plain LoRA, all variants go
through the model together (`models.mixed`); else one after the other, the base first, each with a
cache of its own. What latents write is told from the base's row after the same tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from lorascope.models.adapted import AdaptedModel
from lorascope.models.hooks import replace
from lorascope.models.load import padding_id
from lorascope.models.mixed import VariantRows, mixed
from lorascope.models.sites import Site
from lorascope.reading.prompts import Prompt
from lorascope.reading.removing import Modules, Reads, Taken, TakenDelta, left_out


@dataclass(frozen=True)
class Source:
    """Rows that are changed alike: a variant, and what is taken out of the adapter's effect."""

    variant: str
    without: Taken | Modules | None = None


@dataclass(frozen=True)
class RowOf:
    """A row of a pass.

    Attributes:
        source: number of its source in the pass.
        partner: the base's row after the same tokens, in the base's pass; where latents are taken
            out.
    """

    source: int
    partner: int = -1


@dataclass(eq=False)
class RowPass:
    """Rows of some sources, and what they have read, in one cache.

    Attributes:
        sources: in the order of their rows.
        together: whether all of them go through the model at once; else there is one source.
        base: the pass that the base's rows are in; itself where that is so.
        sites: where streams are kept for others to read.
        rows: at present, those of a source side by side.
        streams: of the newest tokens, at the sites.
    """

    model: AdaptedModel
    sources: list[Source]
    together: bool
    base: RowPass | None = None
    sites: set[Site] = field(default_factory=set)
    rows: list[RowOf] = field(default_factory=list)
    streams: dict[Site, Tensor] = field(default_factory=dict)
    attended: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    cache: Any = None

    def begin(self, prompts: Sequence[Prompt]) -> Float[Tensor, "rows vocab"]:
        """Logits after the prompts, one row for each and source; source by source."""
        ids, attended = _padded(prompts, padding_id(self.model.tokenizer))
        several, count = len(self.sources), len(prompts)
        self.rows = [RowOf(source, n) for source in range(several) for n in range(count)]
        self.attended = attended.repeat(several, 1)
        return self._forward(ids.repeat(several, 1))

    def go_on(
        self, rows: Sequence[RowOf], parents: Sequence[int], tokens: Sequence[int]
    ) -> Float[Tensor, "rows vocab"]:
        """Logits after one more token of each row.

        Args:
            rows: those of a source side by side.
            parents: of each the row it goes on from.
        """
        if list(parents) != list(range(len(self.rows))):
            chosen = torch.tensor(parents, dtype=torch.long)
            self.attended = self.attended[chosen]
            self.cache.reorder_cache(chosen.to(self.model.device))
        self.rows = list(rows)
        new = torch.tensor(tokens, dtype=torch.long)[:, None]
        self.attended = torch.cat([self.attended, torch.ones_like(new)], 1)
        return self._forward(new)

    def _forward(self, new: Int[Tensor, "rows seq"]) -> Float[Tensor, "rows vocab"]:
        device = self.model.device
        with self._shown() as module, self._changed(module, new):
            taken = inspect.signature(module.forward).parameters
            if self.cache is None:
                self.cache = DynamicCache(config=module.config)
            given: dict[str, Any] = {"use_cache": True, "past_key_values": self.cache}
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
    def _shown(self) -> Iterator[Any]:
        """The model with every row's variant, and without what modules add where that is so."""
        if self.together:
            with mixed(self.model, list(self._shares())) as module:
                yield module
            return
        (source,) = self.sources
        with ExitStack() as stack:
            module = stack.enter_context(self.model.variant(source.variant))
            if isinstance(source.without, Modules):
                stack.enter_context(left_out(self.model, source.variant, source.without))
            yield module

    def _shares(self) -> Iterator[VariantRows]:
        start = 0
        for number, own in groupby(self.rows, key=lambda row: row.source):
            stop, source = start + len(list(own)), self.sources[number]
            silent = source.without.paths if isinstance(source.without, Modules) else ()
            yield VariantRows(source.variant, slice(start, stop), frozenset(silent))
            start = stop

    @contextmanager
    def _changed(self, module: Any, new: Int[Tensor, "rows seq"]) -> Iterator[None]:
        """Streams are kept at the sites, and taken out is what is to be."""
        taken: dict[Site, dict[Reads | TakenDelta, list[int]]] = {site: {} for site in self.sites}
        for n, row in enumerate(self.rows):
            own = self.sources[row.source].without
            if isinstance(own, Taken):
                taken.setdefault(own.site, {}).setdefault(own.writer, []).append(n)
        with ExitStack() as stack:
            kept = self._kept(new) if any(taken.values()) else None
            for site, rows in taken.items():
                stack.enter_context(replace(module, site, self._taking(site, rows, kept)))
            yield

    def _taking(
        self, site: Site, taken: dict[Reads | TakenDelta, list[int]], kept: Tensor | None
    ) -> Callable[[Tensor], Tensor]:
        def take_out(stream: Tensor) -> Tensor:
            if site in self.sites:
                self.streams[site] = stream
            if not taken:
                return stream
            assert self.base is not None
            assert kept is not None
            found = stream.float()
            for writer, rows in taken.items():
                at = torch.tensor(rows)
                beside = self.base.streams[site]
                base = beside[torch.tensor([self.rows[n].partner for n in rows]).to(beside.device)]
                sources = [self.sources[self.rows[n].source].without for n in rows]
                numbers = [own.numbers for own in sources if isinstance(own, Taken)]
                here = at.to(stream.device)
                written = writer.written(stream[here], base, numbers, kept[at])
                # The stream itself stays: others may read it.
                found = found.index_add(0, here, written.to(found), alpha=-1)
            return found

        return take_out

    def _kept(self, new: Int[Tensor, "rows seq"]) -> Bool[Tensor, "rows seq"]:
        """Where latents are taken out: at tokens of the text, not at special ones."""
        special = torch.tensor(sorted(self.model.tokenizer.all_special_ids), dtype=torch.long)
        return self.attended[:, -new.shape[1] :].bool() & ~torch.isin(new, special)


def _padded(prompts: Sequence[Prompt], padding: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the left."""
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), padding)
    attended = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
        attended[row, width - len(prompt.ids) :] = 1
    return ids, attended
