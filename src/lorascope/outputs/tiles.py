"""KL of rows of two models and its gradient, a tile of the vocabulary at a time.

With s and o the logits of the spliced and the original model after factor and soft cap c, and S and
O their log-sum-exps, Σ ŷ being 1:

    KL(ŷ, y) = E + O − S,  E = Σ ŷ (s − o)      by raw logit: ŷ (s − o − E) · (1 − (s/c)²)
    KL(y, ŷ) = S − O − F,  F = Σ y (s − o)      by raw logit: (ŷ − y) · (1 − (s/c)²)

1. Both models' products of a few rows; each tile is capped and its log-sum-exp taken.
2. Each tile gives its part of E or F, and what the gradient needs takes the place of the logits.
3. Where E stands in the gradient it is taken off; one product leads back to the states.

Every pass over a tile costs: constants of a row (S, E) and of the cap are put in where the rows
have become sums or states.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.config import Direction
from lorascope.outputs.head import Head

# Rows at once on a processor, enough for products to be as fast as they get, and scores in a tile:
# a megabyte, which a processor's second- or third-level cache holds.
_ROWS, _TILE = 128, 2**18
# Logits whose cap is no larger can be exponentiated as they are, in float32.
SAFE = 60.0
States = Float[Tensor, "rows d"]


def type_of_products(head: Head, device: torch.device) -> torch.dtype:
    """Autocast's type where it is on, else the output matrix's own."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return head.weight.dtype


def rows_at_once(head: Head, like: Tensor, chunk: int) -> int:
    """Rows of `like` whose logits are held at once, `chunk` of a model at most."""
    vocabulary = len(head.weight)
    most = max(1, min(len(like), chunk // vocabulary))
    return min(most, max(_ROWS, _TILE // vocabulary)) if like.device.type == "cpu" else most


class Tiles:
    """Rows of both models scored chunk by chunk in the same workspaces.

    Args:
        head: of both models.
        like: the spliced model's states: their number, device and dtype.
        chunk: most logits of a model to hold at once.
        rooms: workspaces of an earlier step to use again; what is made here is left in it. Fresh
            memory costs as much as a product does.
    """

    def __init__(
        self, head: Head, like: Tensor, chunk: int, rooms: dict[str, Tensor] | None = None
    ) -> None:
        device, vocabulary = like.device, len(head.weight)
        self._head, self._like = head, like
        self._weight = head.weight.to(type_of_products(head, device))
        tiled = device.type == "cpu"
        self._size = rows_at_once(head, like, chunk)
        width = max(1, _TILE // self._size) if tiled else vocabulary
        self._tiles = [
            slice(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width)
        ]
        self._rooms = {} if rooms is None else rooms
        shape = (self._size, vocabulary)
        self._spliced, self._original = (self._room(n, shape, device) for n in ("s", "o"))
        self._mean: Tensor | None = None

    def rows(self) -> Iterator[slice]:
        """The chunks' rows."""
        for start in range(0, len(self._like), self._size):
            yield slice(start, min(start + self._size, len(self._like)))

    def _room(self, name: str, shape: tuple[int, int], device: torch.device) -> Tensor:
        kept = self._rooms.get(name)
        if kept is None or kept.numel() < shape[0] * shape[1] or kept.device != device:
            kept = self._rooms[name] = torch.empty(shape[0] * shape[1], device=device)
        return kept[: shape[0] * shape[1]].view(shape)

    def values(
        self, spliced: States, original: States, direction: Direction
    ) -> Float[Tensor, " rows"]:
        """KL of each row, nats; afterwards `gradient` gives its gradient."""
        s, o = self._spliced[: len(spliced)], self._original[: len(spliced)]
        whole_o = self._scored(original, o)
        whole_s = self._scored(spliced, s)
        found = torch.zeros(len(s), dtype=torch.float64, device=s.device)
        first, cap = direction == "spliced_original", self._head.cap
        square = 1.0 if cap is None else cap * cap
        for tile in self._tiles:
            here, there = s[:, tile], o[:, tile]
            # c² − s²: the cap's derivative but for 1/c²
            slope = None
            if cap is not None:
                squared = torch.full((), square, device=s.device)
                slope = torch.addcmul(squared, here, here, value=-1)
            if first:
                torch.sub(here, there, out=there)
                here.sub_(whole_s[:, None]).exp_()
                there.mul_(here)
                found += there.sum(-1)
            else:
                apart = here - there
                known = there.sub_(whole_o[:, None]).exp_()
                found += apart.mul_(known).sum(-1)
                here.sub_(whole_s[:, None]).exp_().sub_(known)
            if slope is not None:
                here.mul_(slope)
                if first:
                    there.mul_(slope)
        self._mean = found.float() if first else None
        # Rounded as what it undoes; on the CPU, where no one waits for it.
        self._scale = 1.0 / float(torch.tensor(square))
        total = found + (whole_o - whole_s) if first else (whole_s - whole_o) - found
        return total.float()

    def gradient(self, share: float) -> States:
        """d(share · Σ KL)/d(states) of the rows last scored, in the states' dtype."""
        by_logit = self._spliced[: self._count]
        if self._mean is not None:
            tried, by_logit = by_logit, self._original[: self._count]
            taken = self._mean[:, None].neg()
            for tile in self._tiles:
                by_logit[:, tile].addcmul_(tried[:, tile], taken)
        with torch.autocast(by_logit.device.type, enabled=False):
            # scaled last: small numbers would lose digits in a product of low precision
            found = by_logit.to(self._weight.dtype) @ self._weight
        scale = share * self._head.factor * self._scale
        return (found.float() * scale).to(self._like.dtype)

    def _scored(self, states: Tensor, into: Tensor) -> Float[Tensor, " rows"]:
        """Capped logits of the states go into a workspace; their log-sum-exp is returned."""
        head, cap = self._head, self._head.cap
        inputs = states.detach()
        if cap is not None and head.bias is None:
            inputs = inputs.float() * (2 * head.factor / cap)
        inputs = inputs.to(self._weight.dtype)
        safe = cap is not None and cap <= SAFE
        parts = []
        for tile in self._tiles:
            here = into[:, tile]
            with torch.autocast(states.device.type, enabled=False):
                # float32 takes the product where it stands
                if here.dtype == inputs.dtype:
                    torch.mm(inputs, self._weight[tile].T, out=here)
                else:
                    here.copy_(inputs @ self._weight[tile].T)
            if head.bias is not None:
                here += head.bias[tile]
            if cap is None:
                if head.factor != 1.0:
                    here *= head.factor
            else:
                if head.bias is not None:
                    here.mul_(2 * head.factor / cap)
                # c tanh(x/c) = 2c σ(2x/c) − c, five times as fast on processors
                shift = torch.full((), -cap, device=here.device)
                torch.add(shift, here.sigmoid_(), alpha=2 * cap, out=here)
            parts.append(here.exp().sum(-1) if safe else here.logsumexp(-1))
        whole = torch.stack(parts)
        self._normaliser = whole.sum(0).log() if safe else whole.logsumexp(0)
        self._count = len(states)
        return self._normaliser
