"""Which latents to read and write, before any training: gradient times activation.

For an adapter that does nothing yet, the first-order fall of the training loss per unit of the pair
(read i, write j) is M_ij = Σ_t z_ti (g_t · d_j) over the tokens it acts on, g_t the negative
gradient of the loss in the stream. Of all unit factors the leading singular vectors of M lower the
loss most; a latent counts with the norm of its entries there, weighted by the singular values.

M [n, n] is never formed: M = Zᵀ G Dᵀ is applied from the active latents Z and the gradients G.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.errors import InputError
from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite, Seen
from lorascope.outputs.responses import response_token_losses
from lorascope.randomness import generator

_ROUNDS = 12
_BATCH = 16


@dataclass(frozen=True, eq=False)
class LeadingDirections:
    """Leading singular vectors of M.

    Attributes:
        read: latents to read, a unit row a rank, largest singular value first.
        write: latents to write.
        values: singular values, nats/token per unit of weight.
    """

    read: Float[Tensor, "r n"]
    write: Float[Tensor, "r n"]
    values: Float[Tensor, " r"]

    def candidates(self, most: int) -> tuple[Int[Tensor, " reads"], Int[Tensor, " writes"]]:
        """The `most` latents of largest score to read and to write, by index.

        Fewer where fewer have a score at all: a latent that is never active cannot be read.
        """
        found = []
        for factor in (self.read, self.write):
            scores = (self.values[:, None] * factor).norm(dim=0)
            chosen = scores.topk(min(most, int((scores > 0).sum()))).indices
            found.append(chosen.sort().values)
        return found[0], found[1]


def attribute(
    reading: FrozenSite, changed: Sequence[Seen], unchanged: Sequence[Seen], rank: int = 1
) -> LeadingDirections:
    """The attribution of a behaviour's examples, both kinds weighing the same.

    Raises:
        InputError: no latent is active on the examples.
    """
    gradients: list[Tensor] = []
    codes: list[ActiveLatents] = []
    for kind in (changed, unchanged):
        for start in range(0, len(kind), _BATCH):
            part = kind[start : start + _BATCH]
            gradients.append(_gradients(reading, part) / max(1, len(kind)))
            codes.extend(one.codes for one in part)
    together, g = ActiveLatents.together(codes), torch.cat(gradients)
    if not len(together.latent):
        raise InputError("no latent of the dictionary is active on the examples; give another one")
    return _leading(together, g, reading.dictionary.directions.float().cpu(), rank)


def _gradients(reading: FrozenSite, part: Sequence[Seen]) -> Float[Tensor, "rows d"]:
    """−∂/∂stream of the summed mean response losses of the windows, at the tokens acted on."""
    batch = reading.batch(part)
    stream = batch.stream.clone().requires_grad_()
    with torch.enable_grad(), reading.going_on(stream) as module:
        losses, rows = response_token_losses(module, batch.tokens, reading.device)
        counts = torch.bincount(rows, minlength=len(part)).clamp(min=1)
        (found,) = torch.autograd.grad((losses / counts[rows]).sum(), stream)
    return -found[batch.acted_on].float().cpu()


@torch.no_grad()
def _leading(
    codes: ActiveLatents, g: Float[Tensor, "rows d"], directions: Float[Tensor, "n d"], rank: int
) -> LeadingDirections:
    """Subspace iteration on Mᵀ M."""
    n = len(directions)
    write = torch.randn(n, rank, generator=generator(0, "attribution"))
    for _ in range(_ROUNDS):
        read, _ = torch.linalg.qr(_from_written(codes, g, directions, write))
        write, triangle = torch.linalg.qr(_from_read(codes, g, directions, read))
    left, values, right = torch.linalg.svd(triangle)
    # Mᵀ read = write · triangle, so M ≈ read · (left · values · right)ᵀ … in turned bases.
    return LeadingDirections((read @ right.T).T, (write @ left).T, values)


def _from_written(codes: ActiveLatents, g: Tensor, directions: Tensor, write: Tensor) -> Tensor:
    """M · write, [n, r]."""
    return codes.sums(g @ (directions.T @ write), len(directions))


def _from_read(codes: ActiveLatents, g: Tensor, directions: Tensor, read: Tensor) -> Tensor:
    """Mᵀ · read, [n, r]."""
    return directions @ (g.T @ codes.read(read.T))
