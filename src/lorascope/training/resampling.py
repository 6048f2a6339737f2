"""New starts for dead latents, aimed at rows that are badly reconstructed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.training.architectures.penalty import PenalisedObjective

# Encoders start at this share of the living latents' mean strength, so as not to disturb them.
_STRENGTH = 0.2


@torch.no_grad()
def resample(
    objective: PenalisedObjective,
    x: Float[Tensor, "rows d"],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    since: int,
) -> int:
    """Aim latents silent for the last `since` rows anew and forget their optimiser state.

    New directions are the residuals of rows drawn in proportion to their squared error. Returns
    how many latents started anew.
    """
    silent = (objective.idle >= since).nonzero().squeeze(1)
    if not len(silent) or len(silent) == objective.n_latents:
        return 0
    residual = x - objective.dictionary(1.0, Card()).to(x.device)(x)
    weights = residual.square().sum(1).cpu()
    chosen = torch.multinomial(weights, len(silent), replacement=True, generator=generator)
    aims = residual[chosen.to(x.device)]
    living = torch.ones(objective.n_latents, dtype=torch.bool, device=x.device)
    living[silent] = False
    strength = _STRENGTH * objective.maps().encoder[living].norm(dim=1).mean()
    objective.restart(silent, aims / aims.norm(dim=1, keepdim=True).clamp(min=1e-12), strength)
    for parameter in objective.parameters():
        for name in ("exp_avg", "exp_avg_sq"):
            if parameter is not objective.decoder_bias and name in optimizer.state[parameter]:
                optimizer.state[parameter][name][silent] = 0.0
    objective.idle[silent] = 0
    return len(silent)
