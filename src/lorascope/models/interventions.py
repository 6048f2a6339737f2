"""Interventions: run a batch once, then again from a site on with another stream there.

1. `record` runs one variant over a batch and keeps the stream at the sites and the logits.
2. `Recorded.resume` runs the same batch under the same variant with the stream after a site given.
   Blocks up to the site are passed over: what they compute would be thrown away. Where a model's
   later blocks need more of earlier ones than the stream, all blocks run and a hook puts the
   stream in.
3. `unembed` passes over all blocks: the final norm and the output matrix, whatever they are called.
4. `logits` multiplies with the output matrix where a position's logits are wanted, nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel
from lorascope.models.hooks import capture, replace
from lorascope.models.sending import places, sent
from lorascope.models.sites import Site, block_list
from lorascope.randomness import generator

# Least share of a change by which a pass begun at a site may miss the whole pass; rounding is less.
_MISSED = {torch.float64: 1e-6, torch.float32: 1e-4}
_MISSED_LOW = 0.05
# What a model raises whose blocks cannot be passed over.
REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


# Given the model, the stream after a site, and the first position at which it is moved: logits of
# the positions from there on.
Attempt = Callable[[nn.Module, Float[Tensor, "1 seq d"], int], Float[Tensor, "positions vocab"]]


@dataclass(frozen=True, eq=False)
class Recorded:
    """One variant's pass over a batch.

    Attributes:
        wanted: positions whose logits are kept; None for all.
        streams: {site: stream after it}, without gradient, in the model's dtype.
        logits: of the wanted positions in order, [tokens, vocab]; of all, [batch, seq, vocab].
        blocks: what each block returned beside the stream: None for the stream alone.
    """

    model: AdaptedModel
    variant: str
    ids: Int[Tensor, "batch seq"]
    mask: Int[Tensor, "batch seq"]
    wanted: Bool[Tensor, "batch seq"] | None
    streams: dict[Site, Float[Tensor, "batch seq d_model"]]
    logits: Float[Tensor, "*positions vocab"]
    blocks: tuple[int | None, ...]

    def resume(
        self, site: Site, stream: Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "*positions vocab"]:
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
        longest = self.mask.sum(1).argmax()
        ids = self.ids[longest, self.mask[longest] > 0]
        begun = starts_at(self.model, self.variant, site, ids, self.blocks)
        with (
            self.model.variant(self.variant) as module,
            begun.given(module, site, stream, self.wanted),
        ):
            return logits(module, self.ids, self.mask, self.wanted)

    @property
    def size(self) -> int:
        """Numbers it holds."""
        return self.logits.numel() + sum(stream.numel() for stream in self.streams.values())

    def windows(self, chosen: Int[Tensor, " n"], width: int) -> Recorded:
        """Some windows of the batch, cut to so many positions; streams and logits left behind."""
        assert self.wanted is not None
        return replace_fields(
            self,
            ids=self.ids[chosen, :width],
            mask=self.mask[chosen, :width],
            wanted=self.wanted[chosen.to(self.wanted.device), :width],
            streams={},
            logits=self.logits[:0],
        )


@torch.no_grad()
def record(
    model: AdaptedModel,
    variant: str,
    sites: Sequence[Site],
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    wanted: Bool[Tensor, "batch seq"] | None = None,
) -> Recorded:
    """Run one variant over a batch, to be resumed from any site.

    Args:
        sites: where to keep the stream.
        wanted: the positions whose logits are wanted; all by default.

    Raises:
        InputError: as `hooks.capture`.
    """
    with (
        model.variant(variant) as module,
        returned(module) as beside,
        capture(module, sites, attention_mask=attention_mask, stop=False) as streams,
    ):
        found = logits(module, input_ids, attention_mask, wanted)
    return Recorded(
        model, variant, input_ids, attention_mask, wanted, dict(streams), found, tuple(beside)
    )


def logits(
    module: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    wanted: Bool[Tensor, "batch seq"] | None = None,
    past: Any = None,
) -> Float[Tensor, "*positions vocab"]:
    """Logits of all positions, or [tokens, vocab] of the wanted ones in order.

    The output matrix sees the wanted positions alone, if the model calls it with the stream.

    Args:
        past: a cache of earlier positions' keys and values, which is filled further.
    """
    gathered: list[bool] = []

    def gather(_head: nn.Module, inputs: tuple[Any, ...]) -> Any:
        stream = inputs[0] if inputs else None
        if wanted is None or not isinstance(stream, Tensor) or stream.shape[:2] != wanted.shape:
            return None
        gathered.append(True)
        return (stream[places(wanted, stream.device)][None], *inputs[1:])

    named = {} if past is None else {"past_key_values": past}
    with ExitStack() as stack:
        head = module.get_output_embeddings()  # type: ignore[operator]
        if wanted is not None and head is not None:
            stack.callback(head.register_forward_pre_hook(gather).remove)
        found: Tensor = module(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=past is not None,
            **named,
        ).logits
    if wanted is None:
        return found
    return found[0] if gathered else found[places(wanted, found.device)]


@dataclass(frozen=True)
class PassStart:
    """How a pass may be begun at a site.

    Attributes:
        skips: blocks up to the site can be passed over; else all of them run.
        thins: the last block's MLP can be run at the wanted positions alone.
        blocks: what each block returns beside the stream, as `returned` finds it.
    """

    skips: bool
    thins: bool
    blocks: tuple[int | None, ...]

    @contextmanager
    def given(
        self, module: nn.Module, site: Site, stream: Tensor, wanted: Tensor | None = None
    ) -> Iterator[None]:
        """Within the `with`, the stream after `site` is `stream`.

        Args:
            wanted: the positions of the pass whose logits are wanted; all by default.
        """
        with ExitStack() as stack:
            if self.skips:
                stack.enter_context(resuming(module, site, stream, self.blocks))
            else:
                stack.enter_context(replace(module, site, lambda _: stream))
            if self.thins and wanted is not None:
                stack.enter_context(_thinned(block_list(module)[-1], wanted))
            yield


@contextmanager
def _thinned(block: nn.Module, wanted: Bool[Tensor, "batch seq"]) -> Iterator[None]:
    """Within the `with`, a block's MLP runs at the wanted positions alone and gives 0 elsewhere."""
    mlp = getattr(block, "mlp", None)
    if not isinstance(mlp, nn.Module):
        yield
        return
    own = mlp.forward

    def forward(hidden: Tensor, *others: Any, **named: Any) -> Any:
        if others or named or hidden.shape[:2] != wanted.shape:
            return own(hidden, *others, **named)
        found = own(hidden[places(wanted, hidden.device)][None])
        if not isinstance(found, Tensor):
            return own(hidden)
        at = sent(wanted, hidden.device)[..., None]
        return found.new_zeros(*wanted.shape, found.shape[-1]).masked_scatter(at, found)

    put_back = _put_back(mlp)
    mlp.__dict__["forward"] = forward
    try:
        yield
    finally:
        put_back()


# By model: {(variant, site): the length of the window it was tried on, and what was found}.
_starts: WeakKeyDictionary[AdaptedModel, dict[tuple[str, Site], tuple[int, PassStart]]]
_starts = WeakKeyDictionary()


@torch.no_grad()
def starts_at(
    model: AdaptedModel,
    variant: str,
    site: Site,
    ids: Int[Tensor, " seq"],
    blocks: tuple[int | None, ...],
) -> PassStart:
    """How a pass may be begun at a site: tried once on a window, and remembered.

    The stream's second half is moved by as much as its size; logits must come out as those of a
    whole pass with a hook. They do not where a later block reads more of an earlier one than the
    stream, its keys and values for instance.

    Args:
        ids: a window; windows more than twice as long are tried anew.
    """
    known = _starts.setdefault(model, {})
    length, found = known.get((variant, site), (0, None))
    if found is None or len(ids) > 2 * length:
        # The best that holds.
        for skips, thins in ((True, True), (True, False), (False, True), (False, False)):
            found = PassStart(skips, thins, blocks)
            if not (skips or thins) or agrees(model, variant, site, ids, _begun(found, site, ids)):
                break
        assert found is not None
        known[variant, site] = (len(ids), found)
    return found


def _begun(start: PassStart, site: Site, ids: Int[Tensor, " seq"]) -> Attempt:
    def attempt(module: nn.Module, stream: Tensor, begin: int) -> Tensor:
        mask = torch.ones_like(ids)[None]
        wanted = torch.arange(len(ids), device=ids.device)[None] >= begin
        with start.given(module, site, stream, wanted):
            return logits(module, ids[None], mask, wanted)

    return attempt


def agrees(
    model: AdaptedModel,
    variant: str,
    site: Site,
    ids: Int[Tensor, " seq"],
    attempt: Attempt,
) -> bool:
    """Whether an attempt finds the logits of a whole pass with a hook on a window.

    Args:
        attempt: given the model, the stream after the site, and the first position at which it is
            moved; returns the logits of the positions from there on.
    """
    mask, begin = torch.ones_like(ids)[None], len(ids) // 2
    with model.variant(variant) as module:
        with capture(module, [site], stop=False) as streams:
            before = logits(module, ids[None], mask)[0, begin:].float()
        stream = streams[site].clone()
        size = stream.float().square().mean().sqrt()
        noise = torch.randn(stream[:, begin:].shape, generator=generator(0, "moved", site))
        stream[:, begin:] += (size * noise.to(stream.device)).to(stream.dtype)
        with replace(module, site, lambda _: stream):
            whole = logits(module, ids[None], mask)[0, begin:].float()
        try:
            found = attempt(module, stream, begin).float()
        except REFUSALS:
            return False
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return False
    if found.shape != whole.shape:
        return False
    missed, moved = ((x - whole).square().mean().sqrt() for x in (found, before))
    return bool(missed <= _MISSED.get(stream.dtype, _MISSED_LOW) * moved)


@torch.no_grad()
def unembed(
    model: AdaptedModel,
    variant: str,
    streams: Float[Tensor, "n d_model"],
    blocks: Sequence[int | None] | None = None,
) -> Float[Tensor, "n vocab"]:
    """Logits of vectors that stand after the last block: final norm, output matrix, soft cap.

    Args:
        blocks: what each block returns beside the stream; found out on one token if left out.
    """
    ids = torch.zeros(len(streams), 1, dtype=torch.long, device=model.device)
    mask = torch.ones_like(ids)
    last = Site(model.n_blocks - 1)
    shape = blocks or record(model, variant, [last], ids[:1], mask[:1]).blocks
    with model.variant(variant) as module, resuming(module, last, streams[:, None], shape):
        return logits(module, ids, mask)[:, 0]


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


@contextmanager
def passed_over(
    module: nn.Module, site: Site, stream: Tensor, blocks: Sequence[int | None]
) -> Iterator[None]:
    """Within the `with`, blocks up to `site` do nothing and the last of them gives `stream`.

    Hooks on it are called: what is spliced in there reads `stream`, and not as in `resuming` the
    other way round.

    Args:
        blocks: what each block up to `site` returns beside the stream, as `returned` finds it.
    """
    before = list(zip(block_list(module), blocks, strict=False))[: site.index + 1]
    with ExitStack() as stack:
        for block, beside in before:
            stack.callback(_put_back(block))
            block.__dict__["forward"] = partial(_unchanged, beside)
        last, beside = before[-1]
        # A copy: a block may write to what it is given.
        last.__dict__["forward"] = lambda *_, **__: _unchanged(beside, stream.clone())
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
