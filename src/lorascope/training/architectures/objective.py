"""What every architecture in training shares: parameters, a step with written-out gradients.

On inputs scaled to mean norm 1, with v_j the decoder's rows and g_j = ‖v_j‖,

    pre_j = g_j ((x − b_dec)·e_j + b_j)      z = activate(pre)      x̂ = Σ_j z_j v_j/g_j + b_dec
    loss = mean over rows of ‖x − x̂‖² + the architecture's own terms

Directions v_j/g_j have unit norm whatever v_j is, and its length is a latent's gain: a change of
all its coordinates at once, which lets a latent grow or shrink at full speed.

A step works with u_j = pre_j/g_j and a_j = z_j/g_j, since x̂ = Σ_j a_j v_j: gains then enter
through penalties and thresholds alone, and no normalised copy of a weight is made. No autograd
graph is kept over [rows, n_latents].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.training.architectures.codes import Codes, DenseCodes, SparseCodes, Workspace
from lorascope.training.architectures.selection import joined

# Above this share of active latents matrix products are faster than sparse ones on a CPU.
SPARSE_BELOW = 1 / 10
# Entries of a block of pre-activations: what is written is read again before it leaves the cache.
_BLOCK = 2**21
_LEAST_ROWS = 64


@dataclass(frozen=True)
class TrainingStart:
    """Where training starts: unit directions and b_dec, in scaled units."""

    directions: Float[Tensor, "n d"]
    bias: Float[Tensor, " d"]

    def to(self, device: torch.device | str) -> TrainingStart:
        """The same start on another device."""
        return TrainingStart(self.directions.to(device), self.bias.to(device))


@dataclass(frozen=True)
class TrainedMaps:
    """The dictionary's maps: unit directions, and encoder and bias with the gain in them."""

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

    def __init__(self, start: TrainingStart, products: torch.dtype = torch.float32) -> None:
        super().__init__()
        n, device = len(start.directions), start.directions.device
        self.decoder = nn.Parameter(start.directions.clone())
        self.encoder = nn.Parameter(start.directions.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(n, device=device))
        self.decoder_bias = nn.Parameter(start.bias.clone())
        self.products = products
        # Steps of the whole run, for what is paced by them; None while no one has said.
        self.horizon: int | None = None
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
    def gather(self, u: Float[Tensor, "some n"], gain: Float[Tensor, " n"]) -> SparseCodes:
        """The few latents that a block of rows may need, given `u`, which may be overwritten."""

    @abstractmethod
    def mask(self, u: Float[Tensor, "rows n"], gain: Float[Tensor, " n"]) -> DenseCodes:
        """As `gather`, in the dense layout and for the whole batch."""

    def settle(self, codes: Codes, gain: Float[Tensor, " n"]) -> Codes:
        """Activations a of the whole batch from what was gathered."""
        del gain
        return codes

    @abstractmethod
    def dictionary(self, scale: float, card: Card) -> Dictionary:
        """The trained dictionary on raw activations, the scale folded into it."""

    def u_gradient(
        self, codes: Codes, through_a: Tensor, gain: Float[Tensor, " n"], rows: int
    ) -> Tensor:
        """∂loss/∂u on the latents kept, given the reconstruction term's ∂/∂a."""
        del gain, rows
        return through_a.mul_(codes.active)

    def gain_gradient(self, codes: Codes, rows: int) -> Float[Tensor, " n"] | None:
        """∂loss/∂g with a and v held fixed, where a term of the loss depends on the gains."""
        del codes, rows
        return None

    def prepare(self) -> None:
        """What is to be done once before a batch's pre-activations are taken."""

    def set_aside(self, u: Float[Tensor, "some n"]) -> Float[Tensor, "some m"] | None:
        """What a further term needs of a block's pre-activations, before they are overwritten."""
        del u
        return None

    def add_term(
        self,
        aside: Tensor,
        error: Float[Tensor, "rows d"],
        centred: Float[Tensor, "rows d"],
        gain: Float[Tensor, " n"],
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
        gain = self.gain()
        centred = x - self.decoder_bias
        self.prepare()
        codes, aside = self.encode(centred, gain)
        error, gradients = self.reconstruction(codes, centred, gain)
        if aside is not None:
            self.add_term(aside, error, centred, gain, gradients)
        for name, gradient in gradients.items():
            self.get_parameter(name).grad = gradient
        self.count(codes, len(x))
        return {"error": error.square().sum(1).mean(), "l0": self.l0.clone(), **self.scalars()}

    def encode(
        self, centred: Float[Tensor, "rows d"], gain: Float[Tensor, " n"]
    ) -> tuple[Codes, Float[Tensor, "rows m"] | None]:
        """The latents this batch's step works with, and what was set aside."""
        encoder, bias = (weights.to(self.products) for weights in self.reading(gain))
        centred = centred.to(self.products)
        if not self.sparse:
            u = self._product(centred, encoder, bias, len(centred))
            aside = self.set_aside(u)
            return self.settle(self.mask(u, gain), gain), aside
        size = max(_LEAST_ROWS, _BLOCK // self.n_latents)
        parts, asides = [], []
        for block in centred.split(size):
            u = self._product(block, encoder, bias, min(size, len(centred)))
            asides.append(self.set_aside(u))
            parts.append(self.gather(u, gain))
        kept = [aside for aside in asides if aside is not None]
        return self.settle(joined(parts), gain), torch.cat(kept) if kept else None

    def reading(self, gain: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """The encoder and the bias that latents are found with."""
        del gain
        return self.encoder, self.encoder_bias

    def reconstruction(
        self, codes: Codes, centred: Float[Tensor, "rows d"], gain: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "rows d"], dict[str, Tensor]]:
        """The error x̂ − x, and the gradients of every term but the further one."""
        rows, decoder = len(centred), codes.typed(self.decoder)
        error = codes.decode(decoder) - centred
        g = error * (2 / rows)
        g_u = self.u_gradient(codes, codes.products(g, decoder), gain, rows)
        g_bias = codes.by_latent(g_u)
        g_decoder = codes.outer(codes.values, g)
        g_gain = self.gain_gradient(codes, rows)
        if g_gain is not None:
            g_decoder.addcmul_(self.decoder, (g_gain / gain)[:, None])
        return error, {
            "decoder": g_decoder,
            "encoder": codes.outer(g_u, centred),
            "encoder_bias": g_bias,
            # b_dec is added to the output and taken off the input.
            "decoder_bias": g.sum(0) - g_bias @ self.encoder,
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

    def _product(
        self,
        centred: Float[Tensor, "some d"],
        encoder: Float[Tensor, "n d"],
        bias: Float[Tensor, " n"],
        most: int,
    ) -> Float[Tensor, "some n"]:
        """Pre-activations u, in a place for `most` rows that the next call writes over."""
        room = self.workspace.room("u", (most, len(encoder)), centred, self.products)
        return torch.addmm(bias, centred, encoder.T, out=room[: len(centred)])

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

    def gain(self) -> Float[Tensor, " n"]:
        """The lengths of the decoder's rows; autograd goes through."""
        return self.decoder.norm(dim=1).clamp(min=1e-12)

    def maps(self) -> TrainedMaps:
        """Directions, encoder and bias as the latents see them; autograd goes through."""
        gain = self.gain()
        column = gain[:, None]
        return TrainedMaps(self.decoder / column, self.encoder * column, self.encoder_bias * gain)

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
