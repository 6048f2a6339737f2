"""AuxK: latents that have died learn to reconstruct what the living leave over (Gao et al. 2024).

    loss = mean over rows of ‖x − x̂‖² + α · min(1, m/k_aux) · ‖r − r̂‖²

r = x − x̂ is held fixed, r̂ = Σ z_j D_j over the k_aux largest positive pre-activations among the
m dead latents, without a bias. A latent is dead once it has not fired for `dead_after` rows.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.training.architectures import objective
from lorascope.training.architectures.codes import Codes
from lorascope.training.architectures.objective import Objective, TrainingStart
from lorascope.training.architectures.settings import RevivedSettings

# Dead latents are looked up once in so many steps: on a GPU each look waits for the device.
LOOK_EVERY = 16


class RevivedObjective(Objective):
    """An objective whose dead latents are trained on the residual."""

    dead: Tensor
    steps: Tensor

    def __init__(
        self,
        settings: RevivedSettings,
        start: TrainingStart,
        products: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(start, products)
        n, d = start.directions.shape
        self.k, self.aux, self.dead_after = settings.k, settings.aux, settings.dead_after
        self.k_aux = settings.k_aux or max(1, d // 2)
        self.register_buffer("dead", torch.zeros(n, dtype=torch.bool, device=start.bias.device))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._index: Tensor | None = None

    @abstractmethod
    def activate(self, pre: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        """Activations as autograd sees them."""

    def reconstruction_loss(
        self, x: Float[Tensor, "rows d"], z: Float[Tensor, "rows n"]
    ) -> Float[Tensor, ""]:
        """‖x − x̂‖² of activations z, as autograd sees it."""
        return self.plain_error(x, z).square().sum(1).mean()

    def plain_loss(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
        pre = self.plain_pre(x)
        z = self.activate(pre)
        loss = self.reconstruction_loss(x, z)
        if not self.dead.any():
            return loss
        residual = -self.plain_error(x, z).detach()
        dead = pre[:, self.dead]
        kept, columns = torch.relu(dead).topk(min(self.k_aux, dead.shape[1]), dim=1)
        aux = torch.zeros_like(dead).scatter(1, columns, kept)
        leftover = aux @ self.maps().directions[self.dead] - residual
        return loss + self._share(dead.shape[1]) * leftover.square().sum(1).mean()

    def _share(self, dead: int) -> float:
        return self.aux * min(1.0, dead / self.k_aux)

    @property
    def sparse(self) -> bool:
        return not self.decoder.is_cuda and self.k <= objective.SPARSE_BELOW * self.n_latents

    def reading(self, gain: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """With the gains: the largest are chosen among pre-activations."""
        return self.encoder * gain[:, None], self.encoder_bias * gain

    def settle(self, codes: Codes, gain: Float[Tensor, " n"]) -> Codes:
        return codes.with_values(codes.values / codes.at_latents(gain))

    def prepare(self) -> None:
        """Look for dead latents every few steps."""
        if self.steps % LOOK_EVERY == 0:
            self.dead.copy_(self.idle >= self.dead_after)
            self._index = None
        self.steps += 1
        if self._index is None:
            self._index = self.dead.nonzero().squeeze(1)

    def set_aside(self, u: Float[Tensor, "some n"]) -> Float[Tensor, "some m"] | None:
        """The dead latents' pre-activations, if there are dead latents as of the last look."""
        index = self._index
        if self.aux == 0 or index is None or not len(index):
            return None
        return u.index_select(1, index)

    def add_term(
        self,
        aside: Float[Tensor, "rows m"],
        error: Float[Tensor, "rows d"],
        centred: Float[Tensor, "rows d"],
        gain: Float[Tensor, " n"],
        gradients: dict[str, Tensor],
    ) -> None:
        """AuxK's gradients, on the dead latents' rows and b_dec."""
        assert self._index is not None
        index, low = self._index, aside.dtype
        z = torch.relu(aside)
        if len(index) > self.k_aux:
            columns = z.topk(self.k_aux, dim=1, sorted=False)
            z = torch.zeros_like(z).scatter_(1, columns.indices, columns.values)
        a, decoder = z / gain[index].to(low), self.decoder[index].to(low)
        # The residual is −error.
        g = ((a @ decoder).float() + error) * (2 * self._share(len(index)) / len(a))
        g_u = (g.to(low) @ decoder.T) * (a > 0)
        g_bias = g_u.sum(0, dtype=torch.float32)
        gradients["decoder"].index_add_(0, index, (a.T @ g.to(low)).float())
        gradients["encoder"].index_add_(0, index, (g_u.T @ centred.to(low)).float())
        gradients["encoder_bias"].index_add_(0, index, g_bias)
        gradients["decoder_bias"] -= g_bias @ self.encoder[index]

    def scalars(self) -> dict[str, Tensor]:
        return {"dead": (self.idle >= self.dead_after).float().mean()}
