"""Null adapters of full fine-tunes: drawn when they are shown, into the fine-tune's own model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorascope.errors import NoNullAdapter
from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_files import AdapterInfo
from lorascope.models.random_updates import PURPOSE, Rounding, corner, digest_of
from lorascope.randomness import generator

# Draws are kept up to this many bytes of weights; at least the last one is.
CACHE = 2**28


class Redraws:
    """The null adapters of one full fine-tune.

    A draw is W₀ plus a random update of the spectrum of W - W₀ for every parameter that differs,
    tied ones once. It is made when its face is shown and the last draws are kept, up to `CACHE`
    bytes and one draw at least: so memory holds one further copy of the changed weights, not one
    for each draw. Making one costs two QR decompositions of each changed matrix up to 2048 wide,
    a few cosine transforms of a larger one. What else the fine-tune changed, its configuration and
    buffers, a draw shares with it.

    Args:
        tuned: the fine-tune's model.
        model: holds the base and the fine-tune.
        info: of the fine-tune.
        seed: of all draws.

    Attributes:
        identity: digest of what the distribution of the draws depends on: the base's class, 64
            numbers of each changed weight, and the fine-tune's fingerprint.

    Raises:
        NoNullAdapter: a parameter has no counterpart in the base, or is tied in the fine-tune
            alone.
    """

    def __init__(
        self, tuned: PreTrainedModel, model: AdaptedModel, info: AdapterInfo, seed: int
    ) -> None:
        self._base, self._info, self._seed = model.base_parameters, info, seed
        self._tuned = dict(tuned.named_parameters())
        for name, theirs in self._tuned.items():
            ours = self._base.get(name)
            if ours is None or ours.shape != theirs.shape or not theirs.is_floating_point():
                raise NoNullAdapter(
                    f'adapter "{info.name}": the base has no {name} of shape '
                    f"{tuple(theirs.shape)} to take the fine-tune's difference from"
                )
        self._check_ties(tuned)
        self._changed = [name for name in self._tuned if not self._equal(name)]
        corners = [corner(self._base[name]) for name in self._changed]
        self.identity = digest_of(type(tuned).__name__, info.sha256, *self._changed, *corners)
        self._cache: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._factors: dict[int, float] = {}

    @contextmanager
    def shown(self, draw: int, _model: PreTrainedModel) -> Iterator[None]:
        """Within the `with`, the fine-tune's model has the weights of one draw."""
        drawn = self.drawn(draw)
        kept = {name: self._tuned[name].data for name in drawn}
        try:
            for name, value in drawn.items():
                self._tuned[name].data = value
            yield
        finally:
            for name, value in kept.items():
                self._tuned[name].data = value

    @torch.no_grad()
    def drawn(self, draw: int) -> dict[str, Tensor]:
        """{name: value} of every changed parameter in one draw; the fine-tune must be as it is.

        Raises:
            NoNullAdapter: the weights' dtype cannot hold a random change of that size.
        """
        if draw in self._cache:
            self._cache.move_to_end(draw)
            return self._cache[draw]
        rounding, found, factor = Rounding(), {}, self._factors.get(draw, 1.0)
        for name in self._changed:
            random = generator(self._seed, PURPOSE, self.identity, name, draw)
            ours, theirs = self._base[name], self._tuned[name]
            found[name] = rounding.redrawn(ours, theirs, random, factor)
        rounding.check(self._info.name)
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

    def _equal(self, name: str) -> bool:
        theirs = self._tuned[name].detach()
        return torch.equal(self._base[name].detach().to(theirs), theirs)

    def _check_ties(self, tuned: PreTrainedModel) -> None:
        """What the fine-tune ties the base must tie too, or one difference would be two."""
        for name, parameter in tuned.named_parameters(remove_duplicate=False):
            first = next(n for n, p in self._tuned.items() if p is parameter)
            if name not in self._base or not torch.equal(self._base[name], self._base[first]):
                raise NoNullAdapter(
                    f'adapter "{self._info.name}" ties {name} to {first} and the base does not'
                )


def redraws(model: AdaptedModel, name: str, seed: int) -> Redraws:
    """The null adapters of the full fine-tune `name`.

    One is drawn at once, so that what cannot be drawn is refused now.

    Raises:
        NoNullAdapter: as `Redraws` and `Redraws.drawn`.
    """
    with model.face(name) as tuned:
        found = Redraws(tuned, model, model.info(name), seed)
        found.drawn(0)
    return found
