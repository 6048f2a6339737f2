"""KL of rows of two models and its gradient over a vocabulary whose scores no cache holds.

What `tiles` computes, in two sweeps over the vocabulary instead of four. With e the exponentials of
the spliced model's logits s before they are divided by their sum Z, d = s − o, f the soft cap's
slope, and E and Z as in `tiles`, the gradient by a raw logit is

    of KL(ŷ, y): (e d f − E e f) / Z        of KL(y, ŷ): (e f − (Z / Z_o) e_o f) / Z

What is known only when all tiles are through stands in one number a row:

1. Each tile of both models' logits is computed, exponentiated and summed, and the two products
   with f take its place, while a cache holds it.
2. The second times the row's number is taken off the first, and led back to the states.

Soft-capped logits are kept as σ, with s = 2c σ − c and f = 4 (σ − σ²).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.config import Direction
from lorascope.outputs.head import Head
from lorascope.outputs.tiles import SAFE, States, rows_at_once, type_of_products

# Logits of both models in a tile: a megabyte. So many more that sweeps are worth it: 32 MiB.
_TILE, _CACHE = 2**18, 2**23


class Sweeps:
    """Rows of both models scored chunk by chunk in one workspace, on a processor.

    Args:
        head: of both models.
        like: the spliced model's states: their number and dtype.
        chunk: most logits of a model to hold at once.
        rooms: workspaces of an earlier step to use again; what is made here is left in it.
    """

    def __init__(
        self, head: Head, like: Tensor, chunk: int, rooms: dict[str, Tensor] | None = None
    ) -> None:
        vocabulary, rooms = len(head.weight), {} if rooms is None else rooms
        self._head, self._like = head, like
        self._weight = head.weight.to(type_of_products(head, like.device))
        self._size = rows = rows_at_once(head, like, chunk)
        width = max(1, _TILE // (2 * rows))
        self._tiles = [
            slice(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width)
        ]
        size = 2 * rows * vocabulary
        if "both" not in rooms or rooms["both"].numel() < size:
            rooms["both"] = torch.empty(size)
        self._room, self._free = rooms["both"], torch.empty(rows * width)

    @classmethod
    def fit(cls, head: Head, like: Tensor, chunk: int) -> bool:
        """Whether this is the faster way: on a processor, where scores outgrow its cache."""
        size = 2 * rows_at_once(head, like, chunk) * len(head.weight)
        exact = type_of_products(head, like.device) in (torch.float32, torch.bfloat16)
        capped = head.cap is None or head.cap <= SAFE
        return like.device.type == "cpu" and size > _CACHE and exact and capped

    def rows(self) -> Iterator[slice]:
        """The chunks' rows."""
        for start in range(0, len(self._like), self._size):
            yield slice(start, min(start + self._size, len(self._like)))

    def values(
        self, spliced: States, original: States, direction: Direction
    ) -> Float[Tensor, " rows"]:
        """KL of each row, nats; afterwards `gradient` gives its gradient."""
        inputs, count = self._inputs(spliced, original), len(spliced)
        self._count = count
        first, cap = direction == "spliced_original", self._head.cap
        tops, sums = [], []
        for tile in self._tiles:
            both = self._scored(inputs, tile)
            here, there = both[:count], both[count:]
            free = self._free[: here.numel()].view_as(here)
            top = None if cap is not None else both.amax(-1).view(2, count, 1)
            of_there = self._exponential(there, free, top, 1).sum(-1)
            torch.sub(here, there, out=there)
            if first:
                of_here = self._exponential(here, free, top, 0).sum(-1)
                apart = there.mul_(free).sum(-1)
            else:
                apart = there.mul_(free).sum(-1)
                of_here = self._exponential(here, there, top, 0).sum(-1)
            if cap is None:
                here.copy_(free)
            else:
                here.addcmul_(here, here, value=-1)
                there.mul_(here)
                here.mul_(free)
            tops.append(top)
            sums.append(torch.stack((of_here, of_there, apart)))
        return self._finished(first, tops, torch.stack(sums).double())

    def _finished(self, first: bool, tops: list[Tensor | None], sums: Tensor) -> Tensor:
        """KL of each row from the tiles' sums; what the gradient needs of them is kept."""
        cap = self._head.cap
        whole = torch.zeros(2, sums.shape[2], dtype=torch.float64)
        self._shares: Tensor | None = None
        if cap is None:
            highest = torch.stack([top[..., 0] for top in tops if top is not None]).double()
            whole = highest.amax(0)
            self._shares = (highest - whole).exp()
            by_which = self._shares[:, 0 if first else 1]
            sums = sums * torch.stack((*self._shares.unbind(1), by_which), 1)
        of_here, of_there, apart = sums.sum(0)
        normaliser, of_original = whole[0] + of_here.log(), whole[1] + of_there.log()
        mean = apart / (of_here if first else of_there)
        unit = 1.0 if cap is None else 2 * cap
        self._off = (-mean if first else -of_here / of_there).float()[:, None]
        slope = 1.0 if cap is None else 4.0
        self._scale = ((unit if first else 1.0) * slope / of_here).float()[:, None]
        self._first = first
        apart = unit * mean
        total = apart + (of_original - normaliser) if first else normaliser - of_original - apart
        return total.float()

    def gradient(self, share: float) -> States:
        """d(share · Σ KL)/d(states) of the rows last scored, in the states' dtype."""
        count = self._count
        found = torch.zeros(count, self._weight.shape[1])
        for number, tile in enumerate(self._tiles):
            both = self._of(tile)
            here, there = both[:count], both[count:]
            off = self._off
            if self._shares is not None:
                mine, other = self._shares[number].float()[..., None]
                there.mul_(mine)
                off = off * (mine if self._first else other)
            there.addcmul_(here, off)
            with torch.autocast("cpu", enabled=False):
                if self._weight.dtype == torch.float32:
                    found.addmm_(there, self._weight[tile])
                else:
                    found += there.to(self._weight.dtype) @ self._weight[tile]
        return (found * (self._scale * (share * self._head.factor))).to(self._like.dtype)

    def _inputs(self, spliced: States, original: States) -> Tensor:
        """What the output matrix is given: both models' rows, the soft cap's scale put in."""
        inputs, head = torch.cat((spliced, original)).detach(), self._head
        if head.cap is not None and head.bias is None:
            inputs = inputs.float() * (2 * head.factor / head.cap)
        return inputs.to(self._weight.dtype)

    def _of(self, tile: slice) -> Tensor:
        """A tile's place in the workspace, in one piece: rows a vocabulary apart would share few
        lines of a cache."""
        rows, width = 2 * self._count, tile.stop - tile.start
        return self._room[rows * tile.start :][: rows * width].view(rows, width)

    def _scored(self, inputs: Tensor, tile: slice) -> Tensor:
        """Both models' logits of a tile, or their σ, in the workspace."""
        head, found = self._head, self._of(tile)
        with torch.autocast("cpu", enabled=False):
            if inputs.dtype == torch.float32:
                torch.mm(inputs, self._weight[tile].T, out=found)
            else:
                found.copy_(inputs @ self._weight[tile].T)
        if head.bias is not None:
            found += head.bias[tile]
        if head.cap is None:
            return found if head.factor == 1.0 else found.mul_(head.factor)
        if head.bias is not None:
            found.mul_(2 * head.factor / head.cap)
        return found.sigmoid_()

    def _exponential(self, scores: Tensor, into: Tensor, top: Tensor | None, side: int) -> Tensor:
        """e of the logits, from which each row's largest of the tile is taken where none caps
        them."""
        if top is not None:
            return torch.sub(scores, top[side], out=into).exp_()
        cap = self._head.cap
        assert cap is not None
        return torch.add(torch.tensor(-cap), scores, alpha=2 * cap, out=into).exp_()
