"""The dictionaries themselves, trained further through the rest of the model.

A short fine-tune of a trained dictionary by the same KL (Karvonen 2025, arXiv 2503.17272), and,
from a fresh start, an end-to-end dictionary (section 3.2; Braun et al. 2024).

    direction_j = n_j v_j/‖v_j‖        n_j the norm it began with, v fitted
    b = b₀ + s c                       s the stream's mean norm, c fitted; likewise for b_enc

so directions of unit norm stay so by construction, and one rate suits weights and biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.fits.parts.part import AtSites, Values, same_lengths, standing
from lorascope.fits.settings import Tuned
from lorascope.models.sites import Site
from lorascope.outputs.splicing import Placed, Splice


class TunedDictionary(nn.Module):
    """A dictionary whose decoder, and encoder where wanted, are parameters.

    Args:
        dictionary: where it starts; stays as it is.
        scale: unit of the biases' parameters.
        encoder: fit the encoder too.
    """

    def __init__(self, dictionary: Dictionary, scale: float, encoder: bool) -> None:
        super().__init__()
        self._start = (dictionary,)  # in a tuple: it is no part of what is fitted
        self.scale = scale
        self._norms = dictionary.directions.norm(dim=1, keepdim=True)
        self.decoder = nn.Parameter(dictionary.directions.clone())
        self.decoder_shift = nn.Parameter(torch.zeros_like(dictionary.decoder_bias))
        self.encoder: nn.Parameter | None = None
        self.encoder_shift: nn.Parameter | None = None
        if encoder:
            self.encoder = nn.Parameter(dictionary.encoder.clone())
            self.encoder_shift = nn.Parameter(torch.zeros_like(dictionary.encoder_bias))

    @property
    def start(self) -> Dictionary:
        """The dictionary it started from."""
        return self._start[0]

    def tensors(self) -> dict[str, Tensor]:
        """The fitted tensors by the names a dictionary gives them; differentiable."""
        start = self.start
        lengths = self.decoder.norm(dim=1, keepdim=True).clamp(min=1e-12)
        found = {
            "directions": self.decoder * (self._norms / lengths),
            "decoder_bias": start.decoder_bias + self.scale * self.decoder_shift,
        }
        if self.encoder is not None and self.encoder_shift is not None:
            found["encoder"] = self.encoder
            found["encoder_bias"] = start.encoder_bias + self.scale * self.encoder_shift
        return found

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """The reconstruction; gradients reach `x` and the parameters."""
        tensors = self.tensors()
        if "encoder" in tensors:
            found: Tensor = functional_call(self.start, tensors, (x,))
            return found
        return self.start.encode(x) @ tensors["directions"] + tensors["decoder_bias"]

    @torch.no_grad()
    def finished(self) -> Dictionary:
        """As a dictionary."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
        if "encoder" in tensors:
            return self.start.with_tensors(tensors)
        return self.start.rewritten(**tensors)


class TunedPart(AtSites[TunedDictionary]):
    """Dictionaries of a splice that are fitted, put there by `on`."""

    name = "dictionary"

    @classmethod
    @contextmanager
    def on(
        cls, splice: Splice, settings: Tuned, scales: Mapping[Site, float]
    ) -> Iterator[TunedPart]:
        """Within the `with`, the fitted dictionaries stand at their sites.

        Args:
            scales: mean norm of the stream at each site.
        """
        tuned = {
            site: TunedDictionary(one, scales[site], fits_encoder(one, settings))
            for site, one in splice.dictionaries.items()
        }
        part = cls(tuned, settings.rate)
        with standing(splice):
            for site in tuned:
                splice.standing[site] = partial(part._stand, site)
            yield part

    def scrambled(self, random: torch.Generator) -> Values:
        """Every latent's change of what it reads and writes, and every bias's, turned at random."""
        values: Values = []
        for each in self.fitted.values():
            origin = {"decoder": each.start.directions, "encoder": each.start.encoder}
            for name, parameter in each.named_parameters():
                start = origin.get(name, torch.zeros_like(parameter))
                change = (parameter.detach() - start).cpu()
                # An encoder's latents are its columns.
                rows = change.T if name == "encoder" else change
                drawn = same_lengths(rows, random)
                drawn = drawn.T if name == "encoder" else drawn
                values.append((parameter, start + drawn.to(start)))
        return values

    def dictionaries(self, placed: Placed) -> Placed:
        return {site: each.finished() for site, each in self.fitted.items() if site in placed}

    def save(self, folder: Path) -> None:
        """Nothing beside the dictionaries."""

    def _stand(self, site: Site, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        each = self.fitted[site]
        found: Tensor = each(x) if self._active else each.start(x)
        return found


def fits_encoder(dictionary: Dictionary, settings: Tuned) -> bool:
    """Whether these settings fit the encoder of this dictionary."""
    if settings.encoder is None:
        return isinstance(dictionary, TopKDictionary)
    return settings.encoder
