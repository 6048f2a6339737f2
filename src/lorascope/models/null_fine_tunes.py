"""Null adapters of full fine-tunes: drawn when they are shown, into the fine-tune's own model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Generator, Tensor
from transformers import PreTrainedModel

from lorascope.errors import NoNullAdapter
from lorascope.models.adapted import AdaptedModel
from lorascope.models.random_updates import PURPOSE, Rounding, corner, digest_of
from lorascope.randomness import generator

# Draws are kept up to this many bytes of weights; at least the last one is.
CACHE = 2**28


# One parameter in one draw: of its generator, the rounding seen so far, and the draw's factor.
Redraw = Callable[[Generator, Rounding, float], Tensor]


class Redraws:
    """The null adapters of one full fine-tune, or of one adapter that changes weights as it does.

    A draw is W₀ plus a random update of the adapter's spectrum for every parameter that differs. It
    is made when its variant is shown and the last draws are kept, up to `CACHE` bytes and one draw
    at least: so memory holds one further copy of the changed weights, not one for each draw. Making
    one costs two QR decompositions of each changed matrix up to 2048 wide, a few cosine transforms
    of a larger one.

    Args:
        adapter: the adapter's name.
        parameters: {name: parameter} of the model that shows the draws.
        redraws: {name: how it is drawn} of those that differ from the base's.
        identity: digest of what the distribution of the draws depends on.
        seed: of all draws.

    Attributes:
        identity: as given.
    """

    def __init__(
        self,
        adapter: str,
        parameters: Mapping[str, Tensor],
        redraws: Mapping[str, Redraw],
        identity: str,
        seed: int,
    ) -> None:
        self._adapter, self._seed, self.identity = adapter, seed, identity
        self._parameters, self._redraws = parameters, redraws
        self._cache: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._factors: dict[int, float] = {}

    @contextmanager
    def shown(self, draw: int, _model: PreTrainedModel) -> Iterator[None]:
        """Within the `with`, the model has the weights of one draw."""
        drawn = self.drawn(draw)
        kept = {name: self._parameters[name].data for name in drawn}
        try:
            for name, value in drawn.items():
                self._parameters[name].data = value
            yield
        finally:
            for name, value in kept.items():
                self._parameters[name].data = value

    @torch.no_grad()
    def drawn(self, draw: int) -> dict[str, Tensor]:
        """{name: value} of every changed parameter in one draw; the adapter must be as it is.

        Raises:
            NoNullAdapter: the weights' dtype cannot hold a random change of that size.
        """
        if draw in self._cache:
            self._cache.move_to_end(draw)
            return self._cache[draw]
        rounding, found, factor = Rounding(), {}, self._factors.get(draw, 1.0)
        for name, redraw in self._redraws.items():
            random = generator(self._seed, PURPOSE, self.identity, name, draw)
            found[name] = redraw(random, rounding, factor)
        rounding.check(self._adapter)
        size = sum(value.nbytes for value in found.values())
        while self._cache and size * (len(self._cache) + 1) > CACHE:
            self._cache.popitem(last=False)
        self._cache[draw] = found
        return found

    def rescale(self, draw: int, factor: float) -> None:
        """From now on the differences of one draw are multiplied by `factor`.

        Raises:
            NoNullAdapter: as `drawn`; the draw stays as it was.
        """
        before = self._factors.get(draw, 1.0)
        self._factors[draw] = factor
        self._cache.pop(draw, None)
        try:
            self.drawn(draw)
        except NoNullAdapter:
            self._factors[draw] = before
            raise


def redraws(model: AdaptedModel, name: str, seed: int) -> Redraws:
    """The null adapters of the full fine-tune `name`.

    Parameters that differ are drawn, tied ones once. What else the fine-tune changed, its
    configuration and buffers, a draw shares with it. Its identity is the base's class, 64 numbers
    of each changed weight, and the fine-tune's fingerprint. One is drawn at once, so that what
    cannot be drawn is refused now.

    Raises:
        NoNullAdapter: a parameter has no counterpart in the base, or is tied in the fine-tune
            alone; or as `Redraws.drawn`.
    """
    base, info = model.base_parameters, model.info(name)
    with model.variant(name) as tuned:
        own = dict(tuned.named_parameters())
        for key, theirs in own.items():
            ours = base.get(key)
            if ours is None or ours.shape != theirs.shape or not theirs.is_floating_point():
                raise NoNullAdapter(
                    f'adapter "{name}": the base has no {key} of shape {tuple(theirs.shape)} to '
                    "take the fine-tune's difference from"
                )
        _check_ties(name, tuned, own, base)
        changed = [key for key, theirs in own.items() if not _equal(base[key], theirs)]
        corners = [corner(base[key]) for key in changed]
        identity = digest_of(type(tuned).__name__, info.sha256, *changed, *corners)
        drawing = {key: partial(_redrawn, base[key], own[key]) for key in changed}
        found = Redraws(name, own, drawing, identity, seed)
        found.drawn(0)
    return found


def _redrawn(
    ours: Tensor, theirs: Tensor, random: Generator, rounding: Rounding, factor: float
) -> Tensor:
    return rounding.redrawn(ours, theirs, random, factor)


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours.detach().to(theirs), theirs.detach())


def _check_ties(
    name: str, tuned: PreTrainedModel, own: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> None:
    """What the fine-tune ties the base must tie too, or one difference would be two."""
    for key, parameter in tuned.named_parameters(remove_duplicate=False):
        first = next(n for n, p in own.items() if p is parameter)
        if key not in base or not torch.equal(base[key], base[first]):
            raise NoNullAdapter(f'adapter "{name}" ties {key} to {first} and the base does not')
