"""What every architecture in training shares: parameters, a step with written-out gradients.

On inputs scaled to mean norm 1, with v_j the decoder's rows and g_j = ‖v_j‖,

    pre_j = g_j ((x − b_dec)·e_j + b_j)      z = activate(pre)      x̂ = Σ_j z_j v_j/g_j + b_dec
    loss = mean over rows of ‖x − x̂‖² + the architecture's own terms

Directions v_j/g_j have unit norm whatever v_j is, and its length is a latent's gain: a change of
all its coordinates at once, which lets a latent grow or shrink at full speed. No autograd graph is
kept over [rows, n_latents].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from lorascope.config import Settings
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.training.architectures.codes import Codes, DenseCodes, Workspace
from lorascope.training.architectures.selection import nonzero

# Above this share of active latents matrix products are faster than sparse ones on a CPU.
SPARSE_BELOW = 1 / 12


class ArchitectureSettings(Settings, ABC):
    """What the settings of every architecture hold.

    Attributes:
        n_latents: how many latents.
        start: where directions start: "subspace" draws them inside the span that holds the rows'
            variance, which for a low-rank delta is a small part of the stream; "isotropic" in the
            whole stream.
        bias: where b_dec starts, the rows' mean or their geometric median.
    """

    n_latents: int = Field(gt=0)
    start: Literal["subspace", "isotropic"] = "subspace"
    bias: Literal["mean", "median"] = "mean"

    @abstractmethod
    def objective(self, start: Start, products: torch.dtype = torch.float32) -> Objective:
        """The parameters and the loss of this architecture, at the start of training."""


@dataclass(frozen=True)
class Start:
    """Where training starts: unit directions and b_dec, in scaled units."""

    directions: Float[Tensor, "n d"]
    bias: Float[Tensor, " d"]

    def to(self, device: torch.device | str) -> Start:
        """The same start on another device."""
        return Start(self.directions.to(device), self.bias.to(device))


@dataclass(frozen=True)
class Maps:
    """The maps a step works with: unit directions, and encoder and bias with the gain in them."""

    gain: Float[Tensor, "n 1"]
    directions: Float[Tensor, "n d"]
    encoder: Float[Tensor, "n d"]
    bias: Float[Tensor, " n"]


class Folded(TypedDict):
    """The tensors every dictionary is made from."""

    encoder: Tensor
    encoder_bias: Tensor
    directions: Tensor
    decoder_bias: Tensor


class Objective(nn.Module, ABC):
    """Parameters and loss of a dictionary in training.

    Args:
        start: first directions (the encoder starts as their transpose) and decoder bias.
        products: type of the large matrix products (bfloat16 where the hardware has it).
    """

    l0: Tensor
    idle: Tensor

    def __init__(self, start: Start, products: torch.dtype = torch.float32) -> None:
        super().__init__()
        n, device = len(start.directions), start.directions.device
        self.decoder = nn.Parameter(start.directions.clone())
        self.encoder = nn.Parameter(start.directions.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(n, device=device))
        self.decoder_bias = nn.Parameter(start.bias.clone())
        self.products = products
        # Everything a resumed run needs beside the parameters is a buffer.
        self.register_buffer("l0", torch.full((), float(n), device=device))
        self.register_buffer("idle", torch.zeros(n, dtype=torch.long, device=device))
        self.workspace = Workspace()

    @property
    def n_latents(self) -> int:
        """How many latents."""
        return len(self.decoder)

    @abstractmethod
    def plain_loss(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
        """The loss as autograd sees it: the definition the written-out gradients are tested on."""

    @abstractmethod
    def select(self, pre: Float[Tensor, "rows n"], maps: Maps) -> Codes:
        """The latents this batch's step works with, their activations among them.

        `pre` may be overwritten.
        """

    @abstractmethod
    def dictionary(self, scale: float, card: Card) -> Dictionary:
        """The trained dictionary on raw activations, the scale folded into it."""

    def pre_gradient(self, codes: Codes, through_z: Tensor, rows: int) -> Tensor:
        """∂loss/∂pre on the selected latents, given the reconstruction term's ∂/∂z."""
        del rows
        return through_z.mul_(codes.active)

    def set_aside(self, pre: Float[Tensor, "rows n"]) -> Tensor | None:
        """What a further term needs of the pre-activations, before they are written over."""
        del pre
        return None

    def add_term(
        self,
        aside: Tensor,
        error: Float[Tensor, "rows d"],
        centred: Float[Tensor, "rows d"],
        maps: Maps,
        gradients: dict[str, Tensor],
    ) -> None:
        """Add the gradients of a further term, where something was set aside for one."""

    def scalars(self) -> dict[str, Tensor]:
        """What the history notes beside the error and L0."""
        return {}

    @torch.no_grad()
    def step(self, x: Float[Tensor, "rows d"]) -> dict[str, Tensor]:
        """Leave the loss's gradients on the parameters.

        Returns the batch's mean ‖x − x̂‖² as "error", its "l0", and `scalars`.
        """
        maps = self.maps()
        centred = x - self.decoder_bias
        pre = self.pre_activations(centred, maps)
        aside = self.set_aside(pre)
        codes = self.select(pre, maps)
        error, gradients = self.reconstruction(codes, centred, maps)
        if aside is not None:
            self.add_term(aside, error, centred, maps, gradients)
        self._leave(gradients, maps)
        self.count(codes, len(x))
        return {"error": error.square().sum(1).mean(), "l0": self.l0.clone(), **self.scalars()}

    def reconstruction(
        self, codes: Codes, centred: Float[Tensor, "rows d"], maps: Maps
    ) -> tuple[Float[Tensor, "rows d"], dict[str, Tensor]]:
        """The error x̂ − x, and the gradients of every term but the further one.

        Those of "decoder", "encoder" and "encoder_bias" are taken with respect to `maps`.
        """
        error = codes.decode(maps.directions) - centred
        g = error * (2 / len(centred))
        g_pre = self.pre_gradient(codes, codes.products(g, maps.directions), len(centred))
        g_bias = codes.by_latent(g_pre)
        return error, {
            "decoder": codes.outer(codes.values, g),
            "encoder": codes.outer(g_pre, centred),
            "encoder_bias": g_bias,
            # b_dec is added to the output and taken off the input.
            "decoder_bias": g.sum(0) - g_bias @ maps.encoder,
        }

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "rows d"]) -> None:
        """Scale the encoder so that the first reconstructions are as long as their inputs.

        With far more latents than dimensions a transposed encoder overshoots many times over.
        """
        self.finish(x)
        centred = x - self.decoder_bias
        first = self.dictionary(1.0, Card()).to(x.device)(x) - self.decoder_bias
        self.encoder.mul_((centred * first).sum() / first.square().sum().clamp(min=1e-12))

    @torch.no_grad()
    def look(self, x: Float[Tensor, "rows d"], seen: Float[Tensor, "some d"]) -> Float[Tensor, ""]:
        """Mean ‖x − x̂‖/‖x‖ of the dictionary there would be if training ended with rows `seen`."""
        found = self.ended(seen, 1.0, Card()).to(x.device)
        norms = x.norm(dim=1)
        return ((x - found(x)).norm(dim=1) / norms)[norms > 0].mean()

    @torch.no_grad()
    def ended(self, seen: Float[Tensor, "some d"], scale: float, card: Card) -> Dictionary:
        """The dictionary there would be if training ended with rows `seen`; the run goes on."""
        # What `finish` sets is a number or one a latent.
        before = {k: v.clone() for k, v in self.state_dict().items() if v.ndim < 2}
        self.finish(seen)
        found = self.dictionary(scale, card)
        self.load_state_dict(before, strict=False)
        return found

    @torch.no_grad()
    def restart(
        self, latents: Int[Tensor, " m"], aims: Float[Tensor, "m d"], strength: Tensor
    ) -> None:
        """Let some latents start anew: unit directions `aims`, read with `strength`."""
        self.decoder[latents] = aims
        self.encoder[latents] = strength * aims
        self.encoder_bias[latents] = 0.0

    def finish(self, x: Float[Tensor, "rows d"]) -> None:
        """Set from a last look at the data what no gradient trains; most have nothing such."""

    def pre_activations(
        self, centred: Float[Tensor, "rows d"], maps: Maps
    ) -> Float[Tensor, "rows n"]:
        """Pre-activations in the products' type, in a place that the next call writes over."""
        low = self.products
        room = self.workspace.room("pre", (len(centred), self.n_latents), centred, low)
        pre = torch.mm(centred.to(low), maps.encoder.to(low).T, out=room)
        return pre.add_(maps.bias.to(low))

    def positive(self, pre: Float[Tensor, "rows n"]) -> Codes:
        """Codes of max(0, pre), in the layout that is faster at the last batch's L0."""
        z = pre.relu_()
        return nonzero(z) if self.sparse else DenseCodes(z, self.workspace)

    @property
    def sparse(self) -> bool:
        """Whether so few latents are active that sparse products win."""
        # On a GPU the decision would wait for the device, and matrix products are cheap there.
        return not self.l0.is_cuda and self.l0.item() < SPARSE_BELOW * self.n_latents

    def count(self, codes: Codes, rows: int) -> None:
        """Note which latents fired and how many did per row."""
        fired = codes.by_latent(codes.active)
        self.idle += rows
        self.idle.masked_fill_(fired > 0, 0)
        self.l0.copy_(fired.sum() / rows)

    def maps(self) -> Maps:
        """Directions, encoder and bias as the latents see them; autograd goes through."""
        gain = self.decoder.norm(dim=1, keepdim=True).clamp(min=1e-12)
        directions, encoder = self.decoder / gain, self.encoder * gain
        return Maps(gain, directions, encoder, self.encoder_bias * gain.squeeze(1))

    def _leave(self, gradients: dict[str, Tensor], maps: Maps) -> None:
        """Take the maps' gradients on to the parameters behind them."""
        g_direction, g_encoder = gradients["decoder"], gradients["encoder"]
        g_bias = gradients["encoder_bias"]
        along = (g_direction * maps.directions).sum(1, keepdim=True)
        g_gain = (g_encoder * self.encoder).sum(1, keepdim=True)
        g_gain += (g_bias * self.encoder_bias)[:, None]
        towards = g_gain - along / maps.gain
        gradients["decoder"] = g_direction.div_(maps.gain).addcmul_(towards, maps.directions)
        gradients["encoder"] = g_encoder.mul_(maps.gain)
        gradients["encoder_bias"] = g_bias * maps.gain.squeeze(1)
        for name, gradient in gradients.items():
            self.get_parameter(name).grad = gradient

    def plain_pre(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows n"]:
        """Pre-activations as autograd sees them."""
        maps = self.maps()
        return (x - self.decoder_bias) @ maps.encoder.T + maps.bias

    def plain_error(
        self, x: Float[Tensor, "rows d"], z: Float[Tensor, "rows n"]
    ) -> Float[Tensor, "rows d"]:
        """x̂ − x as autograd sees it."""
        return z @ self.maps().directions + self.decoder_bias - x

    @torch.no_grad()
    def folded(self, scale: float) -> Folded:
        """The four tensors of a dictionary on raw activations.

        With x = s·x̃ and z = s·z̃ the maps keep their weights and the biases grow by s: directions
        stay of unit norm and latents are in the stream's units.
        """
        maps = self.maps()
        return {
            "encoder": maps.encoder.T.cpu().contiguous(),
            "encoder_bias": maps.bias.cpu() * scale,
            "directions": maps.directions.cpu(),
            "decoder_bias": self.decoder_bias.cpu() * scale,
        }
