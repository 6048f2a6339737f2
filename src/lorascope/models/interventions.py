"""Interventions: run a batch once, then again from a site on with another stream there.

1. `record` runs one face over a batch and keeps the stream at the sites and the logits.
2. `Recorded.resume` runs the same batch under the same face with the stream after a site given.
   Blocks up to the site are passed over: what they compute would be thrown away.
3. `unembed` passes over all blocks: the final norm and the output matrix, whatever they are called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel
from lorascope.models.hooks import capture, replace
from lorascope.models.sites import Site, block_list


@dataclass(frozen=True, eq=False)
class Recorded:
    """One face's pass over a batch.

    Attributes:
        streams: {site: stream after it}, without gradient, in the model's dtype.
        logits: of the positions `first` to `last` − 1.
        blocks: what each block returned beside the stream: None for the stream alone.
    """

    model: AdaptedModel
    face: str
    ids: Int[Tensor, "batch seq"]
    mask: Int[Tensor, "batch seq"]
    first: int
    last: int
    streams: dict[Site, Float[Tensor, "batch seq d_model"]]
    logits: Float[Tensor, "batch positions vocab"]
    blocks: tuple[int | None, ...]

    def resume(
        self, site: Site, stream: Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "batch positions vocab"]:
        """Logits of the same pass with `stream` after `site`; gradients flow back to it.

        With the stream the pass had there itself, the logits are the recorded ones bit for bit.

        Raises:
            InputError: the stream has another shape than the one there.
        """
        expected = (*self.ids.shape, self.model.d_model)
        if tuple(stream.shape) != expected:
            raise InputError(
                f"what replaces the stream at {site} has shape {tuple(stream.shape)}, "
                f"the stream has {expected}: give the same shape"
            )
        with self.model.face(self.face) as module, resuming(module, site, stream, self.blocks):
            return logits(module, self.ids, self.mask, self.first, self.last)


@torch.no_grad()
def record(
    model: AdaptedModel,
    face: str,
    sites: Sequence[Site],
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    first: int = 0,
    last: int | None = None,
) -> Recorded:
    """Run one face over a batch, to be resumed from any site.

    Args:
        sites: where to keep the stream.
        first, last: the positions whose logits are wanted, `last` left out; all by default.

    Raises:
        InputError: as `hooks.capture`.
    """
    end = input_ids.shape[1] if last is None else last
    with (
        model.face(face) as module,
        returned(module) as beside,
        capture(module, sites, attention_mask=attention_mask, stop=False) as streams,
    ):
        found = logits(module, input_ids, attention_mask, first, end)
    return Recorded(
        model, face, input_ids, attention_mask, first, end, dict(streams), found, tuple(beside)
    )


def logits(
    module: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    first: int,
    last: int,
) -> Float[Tensor, "batch positions vocab"]:
    """Logits of the positions `first` to `last` − 1, no others where the model lets them be
    chosen."""
    chosen: dict[str, Tensor] = {}
    if "logits_to_keep" in inspect.signature(module.forward).parameters:
        chosen["logits_to_keep"] = torch.arange(first, last, device=input_ids.device)
    found: Tensor = module(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **chosen
    ).logits
    return found if chosen else found[:, first:last]


@torch.no_grad()
def unembed(
    model: AdaptedModel, face: str, streams: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n vocab"]:
    """Logits of vectors that stand after the last block: final norm, output matrix, soft cap."""
    ids = torch.zeros(len(streams), 1, dtype=torch.long, device=model.device)
    mask = torch.ones_like(ids)
    last = Site(model.n_blocks - 1)
    # One token tells what the blocks return.
    shape = record(model, face, [last], ids[:1], mask[:1]).blocks
    with model.face(face) as module, resuming(module, last, streams[:, None], shape):
        return logits(module, ids, mask, 0, 1)[:, 0]


@contextmanager
def resuming(
    module: nn.Module, site: Site, stream: Tensor, blocks: Sequence[int | None]
) -> Iterator[None]:
    """Within the `with`, blocks up to `site` do nothing and the stream after it is `stream`.

    Args:
        blocks: what each block returns beside the stream, as `returned` finds it.
    """
    with ExitStack() as stack:
        for block, beside in list(zip(block_list(module), blocks, strict=True))[: site.index + 1]:
            stack.callback(_put_back(block))
            block.__dict__["forward"] = partial(_unchanged, beside)
        stack.enter_context(replace(module, site, lambda _: stream))
        yield


def _put_back(block: nn.Module) -> Callable[[], None]:
    """Undo what is put in place of the block's own `forward`, which device maps replace too."""
    if "forward" in block.__dict__:
        return partial(block.__dict__.__setitem__, "forward", block.__dict__["forward"])
    return partial(block.__dict__.__delitem__, "forward")


def _unchanged(beside: int | None, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
    return hidden_states if beside is None else (hidden_states, *[None] * beside)


@contextmanager
def returned(module: nn.Module) -> Iterator[list[int | None]]:
    """Per block passed within the `with`: how many things it returned beside the stream, or None
    for a lone tensor."""
    found: list[int | None] = []

    def look(_block: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(len(output) - 1 if isinstance(output, tuple) else None)

    with ExitStack() as stack:
        for block in block_list(module):
            stack.callback(block.register_forward_hook(look).remove)
        yield found
