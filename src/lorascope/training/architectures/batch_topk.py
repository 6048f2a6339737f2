"""BatchTopK: k latents a row on average, spread over a batch (Bussmann et al. 2024).

    z = the rows · k largest of max(0, pre) over the whole batch

What is trained keeps no batch: at inference a latent passes above one threshold, the mean over
batches of the smallest activation kept, so that the dictionary is a JumpReLU one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.training.architectures.codes import Codes, DenseCodes, SparseCodes
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.architectures.revival import RevivedObjective
from lorascope.training.architectures.selection import above, largest_of_all
from lorascope.training.architectures.settings import BatchTopK

# Candidates lie above this share of the last batch's smallest kept activation.
_MARGIN = 0.7


class BatchTopKObjective(RevivedObjective):
    """Parameters and loss of a BatchTopK dictionary."""

    smallest: Tensor
    threshold: Tensor

    def __init__(
        self, settings: BatchTopK, start: TrainingStart, products: torch.dtype = torch.float32
    ) -> None:
        super().__init__(settings, start, products)
        self.register_buffer("smallest", torch.zeros((), device=start.bias.device))
        self.register_buffer("threshold", torch.zeros((), device=start.bias.device))

    def activate(self, pre: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        z = torch.relu(pre)
        kept = z.flatten().topk(self.k * len(z)).indices
        return torch.zeros_like(z).flatten().scatter(0, kept, z.flatten()[kept]).view_as(z)

    def encode(
        self, centred: Float[Tensor, "rows d"], gain: Float[Tensor, " n"]
    ) -> tuple[Codes, Float[Tensor, "rows m"] | None]:
        """As every architecture; a second time where the guess of a floor left out too many."""
        self._floor = _MARGIN * self.smallest.clone()
        self._count = self.k * len(centred)
        codes, aside = super().encode(centred, gain)
        if isinstance(codes, SparseCodes) and len(codes.values) < self._count:
            self._floor.zero_()
            codes, aside = super().encode(centred, gain)
        return codes, aside

    def gather(self, u: Tensor, gain: Tensor) -> SparseCodes:
        return above(u, self._floor.to(u.dtype))

    def mask(self, u: Tensor, gain: Tensor) -> DenseCodes:
        z = u.relu_()
        floor = z.flatten().topk(self._count).values[-1]
        self.smallest.copy_(floor)
        return DenseCodes(z.mul_(z >= floor), self.workspace)

    def settle(self, codes: Codes, gain: Float[Tensor, " n"]) -> Codes:
        if isinstance(codes, SparseCodes):
            codes = largest_of_all(codes, self._count)
            if len(codes.values):
                self.smallest.copy_(codes.values.min())
        return super().settle(codes, gain)

    def finish(self, x: Float[Tensor, "rows d"]) -> None:
        """The threshold at which rows like these have k active latents on average."""
        pre = torch.relu(self.plain_pre(x).detach()).flatten()
        # Between the last one kept and the first one not.
        self.threshold.copy_(pre.topk(min(self.k * len(x) + 1, len(pre))).values[-2:].mean())

    def dictionary(self, scale: float, card: Card) -> JumpReluDictionary:
        threshold = torch.full((self.n_latents,), self.threshold.item() * scale)
        return JumpReluDictionary(**self.folded(scale), threshold=threshold, card=card)
