"""One window run once, then again and again from a site on with other streams there.

A change of the stream at some position changes nothing before it: neither the stream nor the keys
and values that later positions attend to. `open_passage` runs the window once and keeps these;
`Passage.resume` runs the positions from the first change on, several changes side by side. A model
whose blocks do not take keys and values of earlier positions this way is run whole.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from lorascope.models.adapted import AdaptedModel
from lorascope.models.hooks import capture
from lorascope.models.interventions import PassStart, agrees, logits, record, starts_at
from lorascope.models.sending import places
from lorascope.models.sites import Site

# Keys and values of one block: [1, heads, seq, head width].
KeysValues = tuple[Tensor, Tensor]
# Of a window's logits, what is to be differentiated.
Objective = Callable[[Float[Tensor, "tokens vocab"]], Float[Tensor, ""]]


@dataclass(frozen=True)
class Beginning:
    """How windows may be run from a site on.

    Attributes:
        start: whether blocks up to the site can be passed over.
        keeps: whether keys and values of earlier positions can be kept, so that a pass begins at
            any position.
    """

    start: PassStart
    keeps: bool


@dataclass(frozen=True, eq=False)
class Passage:
    """One window under one variant.

    Attributes:
        stream: after the site.
        wanted: positions whose logits are wanted.
        logits: of these, in order.
        last: the stream after the last block at these.
        gradient: of the objective with respect to the stream; None if none was given.
        kept: keys and values of the blocks after the site; empty if they cannot be kept.
    """

    model: AdaptedModel
    variant: str
    site: Site
    ids: Int[Tensor, " seq"]
    stream: Float[Tensor, "seq d_model"]
    wanted: Bool[Tensor, " seq"]
    logits: Float[Tensor, "tokens vocab"]
    last: Float[Tensor, "tokens d_model"]
    gradient: Float[Tensor, "seq d_model"] | None
    beginning: Beginning
    kept: dict[int, KeysValues]

    def resume(
        self, streams: Float[Tensor, "n suffix d_model"], begin: int
    ) -> Float[Tensor, "n tokens vocab"]:
        """Logits of the wanted positions from `begin` on with other streams there, side by side.

        Args:
            streams: after the site, of the positions from `begin` on; before, it is as it was.
        """
        count, wanted = len(streams), self.wanted[begin:].expand(len(streams), -1)
        past = None
        if begin and self.beginning.keeps:
            past = self._past(begin, count)
        elif begin:
            streams = torch.cat([self.stream[:begin].expand(count, -1, -1), streams], dim=1)
            wanted = self.wanted.clone()
            wanted[:begin] = False
            wanted = wanted.expand(count, -1)
        ids = self.ids[-streams.shape[1] :].expand(count, -1)
        mask = torch.ones(count, len(self.ids), dtype=torch.long, device=ids.device)
        with (
            self.model.variant(self.variant) as module,
            self.beginning.start.given(module, self.site, streams, wanted),
        ):
            found = logits(module, ids, mask, wanted, past)
        return found.unflatten(0, (count, -1))

    def _past(self, begin: int, count: int) -> DynamicCache:
        """Keys and values of the positions before `begin`, once for each change."""
        past = DynamicCache()
        # Blocks that are passed over tell only how long the past is.
        nothing = torch.zeros(1, 1, 1, 1, device=self.ids.device).expand(count, 1, begin, 1)
        for index in range(self.model.n_blocks):
            keys, values = self.kept.get(index, (nothing, nothing))
            shape = (count, -1, -1, -1)
            past.update(keys[:, :, :begin].expand(shape), values[:, :, :begin].expand(shape), index)
        return past


def open_passage(
    model: AdaptedModel,
    variant: str,
    site: Site,
    ids: Int[Tensor, " seq"],
    stream: Float[Tensor, "seq d_model"],
    wanted: Bool[Tensor, " seq"],
    beginning: Beginning,
    objective: Objective | None = None,
) -> Passage:
    """Run a window from a site on, with the stream that one variant has there.

    Args:
        wanted: positions whose logits are wanted; at least one. On the CPU, or the device is
            asked how many there are.
        beginning: of `beginning_at`.
        objective: is differentiated with respect to the stream.
    """
    past = DynamicCache() if beginning.keeps else None
    given = stream[None].detach().clone()
    with torch.set_grad_enabled(objective is not None), model.variant(variant) as module:
        given.requires_grad_(objective is not None)
        with ExitStack() as stack:
            stack.enter_context(beginning.start.given(module, site, given, wanted[None]))
            end = Site(model.n_blocks - 1)
            streams = stack.enter_context(capture(module, [end], stop=False))
            mask = torch.ones_like(ids)[None]
            found = logits(module, ids[None], mask, wanted[None], past)
        gradient = None
        if objective is not None:
            (gradient,) = torch.autograd.grad(objective(found), given)
    last = streams[end][places(wanted[None], streams[end].device)]
    return Passage(
        *(model, variant, site, ids, stream, wanted, found.detach(), last),
        None if gradient is None else gradient[0],
        beginning,
        _kept(past, site),
    )


def _kept(past: DynamicCache | None, site: Site) -> dict[int, KeysValues]:
    kept: dict[int, KeysValues] = {}
    for index, layer in enumerate([] if past is None else past.layers):
        known: Any = layer
        if index > site.index and known.is_initialized:
            kept[index] = (known.keys.detach(), known.values.detach())
    return kept


# By model: {(variant, site): the length of the window it was tried on, and what was found}.
_beginnings: WeakKeyDictionary[AdaptedModel, dict[tuple[str, Site], tuple[int, Beginning]]]
_beginnings = WeakKeyDictionary()


@torch.no_grad()
def beginning_at(
    model: AdaptedModel, variant: str, site: Site, ids: Int[Tensor, " seq"]
) -> Beginning:
    """How one variant's windows may be run from a site on: tried once on a window, and remembered.

    Args:
        ids: a window; windows more than twice as long are tried anew.
    """
    known = _beginnings.setdefault(model, {})
    length, found = known.get((variant, site), (0, None))
    if found is None or len(ids) > 2 * length:
        mask = torch.ones_like(ids)[None]
        recorded = record(model, variant, [site], ids[None], mask, mask == 1)
        start = starts_at(model, variant, site, ids, recorded.blocks)
        keeping, stream = Beginning(start, True), recorded.streams[site][0]

        def attempt(_module: nn.Module, moved: Tensor, begin: int) -> Tensor:
            wanted = torch.arange(len(ids)) >= begin
            opened = open_passage(model, variant, site, ids, stream, wanted, keeping)
            if begin and len(opened.kept) != model.n_blocks - 1 - site.index:
                raise ValueError("not every block kept its keys and values")
            return opened.resume(moved[:, begin:], begin)[0]

        keeps = start.skips and agrees(model, variant, site, ids, attempt)
        found = Beginning(start, keeps)
        known[variant, site] = (len(ids), found)
    return found
