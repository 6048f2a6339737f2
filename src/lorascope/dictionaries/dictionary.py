"""A dictionary (SAE): encode, decode, directions. Works on raw activations; scales are folded in.

One orientation everywhere: directions are rows, `[n_latents, d_model]`; files that store another
are converted where they are read.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.activations.massive import Levelling
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.hub import Described, OnHub
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.model_card import described, portable


class Dictionary(nn.Module, OnHub, ABC):
    """z = activate((x − b_dec) W_enc + b_enc), x̂ = z W_dec + b_dec (equations 3 and 4).

    Args:
        encoder: W_enc.
        encoder_bias: b_enc.
        directions: W_dec; row i is what latent i writes.
        decoder_bias: b_dec.
        subtract_bias: whether b_dec is taken off the input (Gemma Scope does not).
        card: where the dictionary comes from.

    Raises:
        ValueError: shapes that do not belong together.

    Examples:
        >>> import torch
        >>> sae = ls.SAE.from_pretrained("runs/mine/dictionaries/layers.5-base-seed0")
        >>> z = sae.encode(torch.zeros(3, sae.d_model))
        >>> tuple(z.shape), tuple(sae.decode(z).shape), tuple(sae.directions.shape)
        ((3, 64), (3, 192), (64, 192))
    """

    architecture: ClassVar[str]
    # What a subclass takes beside tensors, by name: k.
    numbers: ClassVar[tuple[str, ...]] = ()
    encoder: Tensor
    encoder_bias: Tensor
    directions: Tensor
    decoder_bias: Tensor

    def __init__(
        self,
        encoder: Float[Tensor, "d n"],
        encoder_bias: Float[Tensor, " n"],
        directions: Float[Tensor, "n d"],
        decoder_bias: Float[Tensor, " d"],
        *,
        subtract_bias: bool = True,
        card: Card | None = None,
    ) -> None:
        super().__init__()
        for name, tensor in Maps(encoder, encoder_bias, directions, decoder_bias).parts().items():
            self.register_buffer(name, tensor)
        self.subtract_bias = subtract_bias
        self.card = card or Card()

    def __repr__(self) -> str:
        card = self.card
        of = f" of {card.adapter}" if card.adapter else ""
        made = (f"{card.target}{of}" if card.target != "unknown" else "", card.site, card.source)
        parts = [f"{self.n_latents:,} latents of {self.d_model} dimensions", *filter(None, made)]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def n_latents(self) -> int:
        """How many latents."""
        return self.directions.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the stream it reads."""
        return self.directions.shape[1]

    @abstractmethod
    def activate(self, pre: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        """Latents from pre-activations: the architecture's own nonlinearity."""

    def encode(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows n"]:
        """Latent activations of raw stream vectors."""
        centred = x - self.decoder_bias if self.subtract_bias else x
        return self.activate(centred @ self.encoder + self.encoder_bias)

    def decode(self, z: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows d"]:
        """Reconstruction in the stream's units."""
        return z @ self.directions + self.decoder_bias

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """Reconstruction of raw stream vectors."""
        return self.decode(self.encode(x))

    @classmethod
    def from_pretrained(
        cls, address: str | os.PathLike[str], *, site: str | None = None
    ) -> Dictionary:
        """Open a dictionary, whatever its format and architecture.

        Args:
            address: a folder, `owner/repo` or `owner/repo/folder` on the hub, or any address that
                `open_dictionary` takes.
            site: what it reads, for a file that does not say.

        Raises:
            InputError: as `open_dictionary`.
        """
        # Formats are above this module.
        from lorascope.dictionaries.files import open_dictionary

        text = os.fspath(address)
        if not Path(text).expanduser().exists() and "://" not in text and ":" not in text:
            text = f"hf://{text}" if text.count("/") and text[0] not in "./~" else text
        return open_dictionary(text, site)

    def write_to(self, folder: Path) -> None:
        """Write it in SAELens layout with its card, without a model card."""
        from lorascope.dictionaries.formats.saelens_layout import write

        given, self.card = self.card, portable(self.card)
        try:
            write(self, folder)
        finally:
            self.card = given

    def described(self) -> Described:
        """What its model card says."""
        return described(self.card, (self.n_latents, self.d_model), self.architecture)

    @torch.no_grad()
    def rotated(self, rotation: Float[Tensor, "d d"]) -> Dictionary:
        """The same dictionary in a rotated stream: what it reads, writes and its bias all turn.

        Row vectors turn as x ↦ x R; used as a null, never on its own stream.
        """
        turned = {
            "encoder": rotation.T @ self.encoder,
            "directions": self.directions @ rotation,
            "decoder_bias": self.decoder_bias @ rotation,
        }
        return self.with_tensors(turned)

    def with_tensors(self, changed: dict[str, Tensor]) -> Dictionary:
        """A copy with some of the tensors exchanged, by the names of the buffers."""
        given: dict[str, Any] = {**dict(self.named_buffers()), **changed}
        for name in ("subtract_bias", "card", *self.numbers):
            given[name] = getattr(self, name)
        return type(self)(**given)

    @torch.no_grad()
    def rewritten(
        self, directions: Float[Tensor, "n d"], decoder_bias: Float[Tensor, " d"]
    ) -> Dictionary:
        """The same latents of every input, writing something else.

        Where b_dec is taken off the input, the encoder's biases make up for its change.
        """
        changed = {"directions": directions, "decoder_bias": decoder_bias}
        if self.subtract_bias:
            changed |= self._moved_back((decoder_bias - self.decoder_bias) @ self.encoder)
        return self.with_tensors(changed)

    @torch.no_grad()
    def undoing(self, levelling: Levelling) -> Dictionary:
        """Of a dictionary of levelled rows, the one that does the same to the stream itself.

        The same latents are active and the reconstructions are mapped back. Directions then
        have the norm 1 again and latents the stream's units, but for TopK: there the latents
        compete by their size, so they keep the one they were trained with and directions a norm of
        their own.

        Raises:
            ValueError: b_dec is not taken off the input.
        """
        if not self.subtract_bias:
            raise ValueError("levelling is undone where b_dec is taken off the input alone")
        bias = self.decoder_bias
        mapped = self.with_tensors(
            {
                "encoder": levelling.read(self.encoder),
                "directions": levelling.write(self.directions),
                "decoder_bias": levelling.write(bias[None])[0] + levelling.offset.to(bias),
            }
        )
        return mapped.with_tensors(mapped._of_unit_norm(mapped.directions.norm(dim=1)))

    def _of_unit_norm(self, norms: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """The tensors with each direction's norm moved into its latent; silent ones stay."""
        norms = torch.where(norms > 0, norms, 1.0)
        return {
            "encoder": self.encoder * norms,
            "encoder_bias": self.encoder_bias * norms,
            "directions": self.directions / norms[:, None],
        }

    def _moved_back(self, moved: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """The biases with which latents stay the same once x W_enc is less by `moved`."""
        return {"encoder_bias": self.encoder_bias + moved}
