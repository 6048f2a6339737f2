"""The affine maps every dictionary has, and the foldings that formats ask for.

Latents are the gate of pre = (x − b_dec) W_enc + b_enc (or x W_enc + b_enc), reconstructions
z W_dec + b_dec. A folding changes the maps so that a factor some format applies at run time is
no longer needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Rows of W_dec shorter than this are silent latents; dividing by less would make NaN of them.
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True, eq=False)
class Maps:
    """W_enc, b_enc, W_dec (a direction a row) and b_dec, in float32.

    Raises:
        ValueError: shapes that do not belong together.
    """

    encoder: Float[Tensor, "d n"]
    encoder_bias: Float[Tensor, " n"]
    directions: Float[Tensor, "n d"]
    decoder_bias: Float[Tensor, " d"]

    def __post_init__(self) -> None:
        if self.directions.ndim != 2:
            raise ValueError(f"directions has shape {tuple(self.directions.shape)}, expected rows")
        n, d = self.directions.shape
        if not n or not d:
            raise ValueError(f"there are {n} latents of width {d}, expected at least one of each")
        expected = {"encoder": (d, n), "encoder_bias": (n,), "decoder_bias": (d,)}
        for name, shape in expected.items():
            given = tuple(getattr(self, name).shape)
            if given != shape:
                raise ValueError(
                    f"{name} has shape {given}, expected {shape} for {n} latents of width {d}"
                )
        for name in ("directions", *expected):
            object.__setattr__(self, name, getattr(self, name).detach().float())

    @property
    def n(self) -> int:
        """How many latents."""
        return self.directions.shape[0]

    @property
    def d(self) -> int:
        """Width of the rows read."""
        return self.directions.shape[1]

    def parts(self) -> dict[str, Any]:
        """The four tensors by the names a dictionary's constructor takes."""
        return dict(vars(self))

    def for_raw_input(self, factor: float) -> Maps:
        """Maps on x that do what these do on `factor`·x, the reconstruction divided by it again.

        Pre-activations, and with them any threshold on them, stay as they are:
        W_enc ← factor·W_enc, W_dec ← W_dec/factor, b_dec ← b_dec/factor.
        """
        return replace(
            self,
            encoder=self.encoder * factor,
            directions=self.directions / factor,
            decoder_bias=self.decoder_bias / factor,
        )

    def in_stream_units(self, factor_in: float, factor_out: float) -> Maps:
        """As `for_raw_input`, but pre-activations come divided by `factor_in`: in x's own units.

        For gates without a threshold, or with one that is meant in those units:
        b_enc ← b_enc/factor_in, W_dec ← W_dec·factor_in/factor_out, b_dec ← b_dec/factor_out.
        """
        return replace(
            self,
            encoder_bias=self.encoder_bias / factor_in,
            directions=self.directions * (factor_in / factor_out),
            decoder_bias=self.decoder_bias / factor_out,
        )

    def whitened(
        self,
        mean: Float[Tensor, " d"],
        matrix: Float[Tensor, "d d"],
        inverse: Float[Tensor, "d d"],
        *,
        subtract_bias: bool,
    ) -> Maps:
        """Maps on x that do what these do on (x − mean)·matrix, mapped back with ·inverse + mean.

        Latents stay as they are: W_enc ← matrix W_enc, W_dec ← W_dec inverse,
        b_dec ← b_dec inverse + mean; where b_dec is not subtracted, b_enc ← b_enc − mean·W_enc
        with the new W_enc. Computed in float64.

        Raises:
            ValueError: sizes other than the rows' width.
        """
        for name, given in (("mean", mean), ("matrix", matrix), ("inverse_matrix", inverse)):
            if set(given.shape) != {self.d}:
                raise ValueError(f"{name} has shape {tuple(given.shape)} for a width of {self.d}")
        mean, inverse = mean.double(), inverse.double()
        encoder = matrix.double() @ self.encoder.double()
        bias = self.encoder_bias.double()
        return Maps(
            encoder,
            bias if subtract_bias else bias - mean @ encoder,
            self.directions.double() @ inverse,
            self.decoder_bias.double() @ inverse + mean,
        )

    def both_ways(self) -> Maps:
        """Every latent followed, n places later, by one that reads and writes the opposite.

        With these, gates for positive latents serve dictionaries whose latents have a sign.
        """
        return Maps(
            torch.cat([self.encoder, -self.encoder], dim=1),
            torch.cat([self.encoder_bias, -self.encoder_bias]),
            torch.cat([self.directions, -self.directions]),
            self.decoder_bias,
        )

    def unit_directions(self) -> Maps:
        """Maps whose directions have norm 1 and whose pre-activations carry the norm.

        Gates after this see pre·‖w_dec‖, as formats mean that gate with the decoder's norm.
        """
        norms = self.directions.norm(dim=1)
        return replace(
            self,
            encoder=self.encoder * norms,
            encoder_bias=self.encoder_bias * norms,
            directions=self.directions / norms.clamp(min=_SMALLEST_NORM)[:, None],
        )
