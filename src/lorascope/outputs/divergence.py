"""KL between a spliced model's next-token distribution and the original's, a few tokens at a time.

With ŷ the spliced model's distribution, y the original's and s the spliced model's logits:

    KL(ŷ, y) = Σ ŷ (log ŷ − log y)       d/ds = ŷ (log ŷ − log y − KL)       equation 7
    KL(y, ŷ) = Σ y (log y − log ŷ)       d/ds = ŷ − y

The gradient is as cheap as the value, so both are computed together in the forward pass, chunk by
chunk from the final states: full logits of neither model are ever held. On a processor the chunk is
gone through in tiles of the vocabulary that its cache holds, with everything that is done to a tile
done at once: over a large vocabulary a step is otherwise spent on reading and writing scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lorascope.config import Direction
from lorascope.outputs.head import Head
from lorascope.outputs.sweeps import Sweeps
from lorascope.outputs.tiles import Tiles

# Logits held at once in one workspace: 64 MiB of float32.
CHUNK = 2**24
States = Float[Tensor, "tokens d"]


def mean_divergence(
    spliced: States,
    original: States,
    head: Head,
    direction: Direction = "spliced_original",
    *,
    tokens: int | None = None,
    chunk: int = 2 * CHUNK,
    rooms: dict[str, Tensor] | None = None,
) -> Float[Tensor, ""]:
    """Mean KL a token in nats; differentiable in `spliced`, which may be differentiated once.

    Products are in autocast's type where it is on, everything else is float32.

    Args:
        spliced: final states of the spliced model at the positions that count.
        original: those of the original at the same positions; no gradient flows there.
        direction: "spliced_original" is KL(ŷ, y), the paper's; "original_spliced" is KL(y, ŷ).
        tokens: what the sum is divided by; the number of rows unless they are a part of a step.
        chunk: most logits of either model to hold at once; two such workspaces are all there are.
        rooms: workspaces to use again from call to call, empty at first; a call's own by default.
    """
    share = 1.0 / (tokens or len(spliced))
    total: Tensor = _Divergence.apply(spliced, original, head, direction, share, chunk, rooms)
    return total


@torch.no_grad()
def token_losses(
    states: States, targets: Int[Tensor, " tokens"], head: Head, *, chunk: int = CHUNK
) -> Float[Tensor, " tokens"]:
    """−log p of each target at the position that predicts it, nats."""
    pairs = _Pairs(head, states, chunk)
    places = targets.to(states.device)[:, None]
    found = [
        -pairs.log_probabilities(states[rows], "spliced").gather(1, places[rows]).squeeze(1)
        for rows in pairs.rows()
    ]
    return torch.cat(found) if found else states.new_zeros(0, dtype=torch.float32)


@torch.no_grad()
def token_scores(
    spliced: States,
    original: States,
    targets: Int[Tensor, " tokens"],
    head: Head,
    direction: Direction = "spliced_original",
    *,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """KL of every token, and the spliced model's `token_losses`, from the same scores; nats.

    KL is never below zero by more than rounding.
    """
    (found,) = scores_of_several([spliced], original, targets, head, direction, chunk=chunk)
    return found


@torch.no_grad()
def scores_of_several(
    several: Sequence[States],
    original: States,
    targets: Int[Tensor, " tokens"],
    head: Head,
    direction: Direction = "spliced_original",
    *,
    chunk: int = CHUNK,
) -> list[tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]]:
    """`token_scores` of several spliced models; the original's scores are computed once for all."""
    pairs = _Pairs(head, original, chunk)
    places = targets.to(original.device)[:, None]
    empty = original.new_zeros(0, dtype=torch.float32)
    found = [([empty], [empty]) for _ in several]
    for rows in pairs.rows() if several else ():
        log_o = pairs.log_probabilities(original[rows], "original")
        for spliced, (kl, losses) in zip(several, found, strict=True):
            log_s = pairs.log_probabilities(spliced[rows], "spliced")
            losses.append(-log_s.gather(1, places[rows]).squeeze(1))
            kl.append(pairs.between(log_s, log_o, direction))
    return [(torch.cat(kl), torch.cat(losses)) for kl, losses in found]


class _Divergence(torch.autograd.Function):
    """Sum of KL times `share`, its gradient computed beside it."""

    @staticmethod
    def forward(
        ctx: Any,
        spliced: Tensor,
        original: Tensor,
        head: Head,
        direction: Direction,
        share: float,
        chunk: int,
        rooms: dict[str, Tensor] | None,
    ) -> Tensor:
        way = Sweeps if Sweeps.fit(head, spliced, chunk) else Tiles
        tiles = way(head, spliced, chunk, rooms)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(spliced) if wanted else None
        total = torch.zeros((), device=spliced.device)
        for rows in tiles.rows():
            values = tiles.values(spliced[rows], original[rows], direction)
            total += values.sum().to(total)
            if gradient is not None:
                gradient[rows] = tiles.gradient(share)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None, None, None, None, None


@dataclass
class _Pairs:
    """Rows of both models scored chunk by chunk in the same few workspaces.

    What is computed this way has a log-probability for every token; `tiles.Tiles` has only KL.
    """

    head: Head
    like: Tensor
    chunk: int

    def __post_init__(self) -> None:
        weight, device = self.head.weight, self.like.device
        low = weight.dtype
        if torch.is_autocast_enabled(device.type):
            low = torch.get_autocast_dtype(device.type)
        self._weight = weight.to(low)
        self._size = max(1, min(len(self.like), self.chunk // len(weight)))
        self._rooms: dict[str, Tensor] = {}

    def rows(self) -> Iterator[slice]:
        """The chunks' rows."""
        for start in range(0, len(self.like), self._size):
            yield slice(start, min(start + self._size, len(self.like)))

    def log_probabilities(self, states: Tensor, side: str) -> Tensor:
        """In the workspace `side`."""
        head, raw = self.head, self._room("raw", len(states))
        with torch.autocast(states.device.type, enabled=False):
            inputs = states.detach().to(self._weight.dtype)
            if raw.dtype == inputs.dtype:
                torch.mm(inputs, self._weight.T, out=raw)
            else:
                raw.copy_(inputs @ self._weight.T)
        if head.bias is not None:
            raw += head.bias
        if head.factor != 1.0:
            raw *= head.factor
        if head.cap is not None:
            raw.div_(head.cap).tanh_().mul_(head.cap)
        found = self._room(side, len(states))
        torch.log_softmax(raw, -1, out=found)
        return found

    def between(self, log_s: Tensor, log_o: Tensor, direction: Direction) -> Tensor:
        """KL of rows scored last; writes over the spliced model's scores."""
        raw = self._room("raw", len(log_s))
        if direction == "spliced_original":
            torch.exp(log_s, out=raw)
            parts = raw.mul_(log_s.sub_(log_o))
        else:
            torch.exp(log_o, out=raw)
            parts = torch.sub(log_o, log_s, out=log_s).mul_(raw)
        # `sum` adds in pairs; a product of vectors would lose four digits over a large vocabulary
        return parts.sum(-1)

    def _room(self, name: str, rows: int) -> Tensor:
        if name not in self._rooms:
            shape = (self._size, len(self._weight))
            self._rooms[name] = torch.empty(shape, device=self.like.device)
        return self._rooms[name][:rows]
