"""KL of rows of two models and its gradient, a tile of the vocabulary at a time.

With s and o the logits of the spliced and the original model after factor and soft cap c, and S and O
their log-sum-exps:

    δ = s − o − (S − O)         log ŷ − log y
    KL(ŷ, y) = Σ ŷ δ            by raw logit: ŷ (δ − KL) · (1 − (s/c)²)
    KL(y, ŷ) = −Σ y δ           by raw logit: (ŷ − y) · (1 − (s/c)²)

1. Both models' products of a few rows; each tile is capped and its log-sum-exp taken.
2. Each tile gives its part of KL, and what the gradient needs takes the place of the logits.
3. Where KL itself stands in the gradient it is taken off; one product leads back to the states.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.adapt.head import Head
from lorascope.adapt.settings import Direction

# Rows at once on a processor, enough for products to be as fast as they get, and scores in a tile:
# a megabyte, which a processor's second- or third-level cache holds.
_ROWS, _TILE = 128, 2**18
# Logits whose cap is no larger can be exponentiated as they are, in float32.
_SAFE = 60.0
States = Float[Tensor, "rows d"]


class Tiles:
    """Rows of both models scored chunk by chunk in the same workspaces.

    Args:
        head: of both models.
        like: the spliced model's states: their number, device and dtype.
        chunk: most logits of a model to hold at once.
    """

    def __init__(self, head: Head, like: Tensor, chunk: int) -> None:
        device, vocabulary = like.device, len(head.weight)
        low = head.weight.dtype
        if torch.is_autocast_enabled(device.type):
            low = torch.get_autocast_dtype(device.type)
        self._head, self._like, self._weight = head, like, head.weight.to(low)
        most = max(1, min(len(like), chunk // vocabulary))
        tiled = device.type == "cpu"
        self._size = min(most, max(_ROWS, _TILE // vocabulary)) if tiled else most
        width = max(1, _TILE // self._size) if tiled else vocabulary
        self._tiles = [
            slice(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width)
        ]
        shape = (self._size, vocabulary)
        self._spliced, self._original = (torch.empty(shape, device=device) for _ in range(2))
        self._values: Tensor | None = None

    def rows(self) -> Iterator[slice]:
        """The chunks' rows."""
        for start in range(0, len(self._like), self._size):
            yield slice(start, min(start + self._size, len(self._like)))

    def values(
        self, spliced: States, original: States, direction: Direction
    ) -> Float[Tensor, " rows"]:
        """KL of each row, nats; afterwards `gradient` gives its gradient."""
        s, o = self._spliced[: len(spliced)], self._original[: len(spliced)]
        apart = self._scored(original, o) - self._scored(spliced, s)
        whole = self._normaliser
        found = torch.zeros(len(s), dtype=torch.float64, device=s.device)
        cap = self._head.cap
        for tile in self._tiles:
            here, there = s[:, tile], o[:, tile]
            slope = None if cap is None else (here / cap).square_().neg_().add_(1.0)
            log_ratio = (here - there).add_(apart[:, None])
            tried = here.sub_(whole[:, None]).exp_()
            if direction == "spliced_original":
                weighed = torch.mul(tried, log_ratio, out=there)
                found += weighed.sum(-1)
            else:
                # y = ŷ · e^−δ
                known = log_ratio.neg().exp_().mul_(tried)
                found -= (known * log_ratio).sum(-1)
                tried.sub_(known)
            if slope is not None:
                tried.mul_(slope)
                if direction == "spliced_original":
                    there.mul_(slope)
        # Where KL stands in the gradient it is taken off the weighed ratios, in `gradient`.
        self._values = found.float() if direction == "spliced_original" else None
        return found.float()

    def gradient(self, share: float) -> States:
        """d(share · Σ KL)/d(states) of the rows last scored, in the states' dtype."""
        count = self._count
        by_logit = self._spliced[:count]
        if self._values is not None:
            tried, by_logit = by_logit, self._original[:count]
            taken = self._values[:, None].neg()
            for tile in self._tiles:
                by_logit[:, tile].addcmul_(tried[:, tile], taken)
        with torch.autocast(by_logit.device.type, enabled=False):
            # scaled last: small numbers would lose digits in a product of low precision
            found = by_logit.to(self._weight.dtype) @ self._weight
        return (found.float() * (share * self._head.factor)).to(self._like.dtype)

    def _scored(self, states: Tensor, into: Tensor) -> Float[Tensor, " rows"]:
        """Capped logits of the states go into a workspace; their log-sum-exp is returned."""
        head, cap = self._head, self._head.cap
        inputs = states.detach().to(self._weight.dtype)
        safe = cap is not None and cap <= _SAFE
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
                # c tanh(x/c) = 2c σ(2x/c) − c, five times as fast on processors
                here.mul_(2 * head.factor / cap).sigmoid_().mul_(2 * cap).sub_(cap)
            parts.append(here.exp().sum(-1) if safe else here.logsumexp(-1))
        whole = torch.stack(parts)
        self._normaliser = whole.sum(0).log() if safe else whole.logsumexp(0)
        self._count = len(states)
        return self._normaliser
