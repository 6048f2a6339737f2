"""Numbers without a stream's massive coordinates and directions.

What is massive (`activations.massive`) is found in the base stream. Without it means: projected out
of base rows and deltas, of what dictionaries read and write, and of the covariances of chance
levels. Every measure is then what it is for the whole stream, of what these functions return; the
keys of such numbers say so in `massive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.massive import Massive
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.alignment import NullSettings
from lorascope.results import Estimate, Key
from lorascope.stats.intervals import UNKNOWN


def share_estimate(massive: Massive, rows: int, place: Key) -> Estimate:
    """Share of the base stream's energy in what is massive; `rows` were looked at."""
    return Estimate("massive.share", massive.share, UNKNOWN, rows, "share", (), place)


def place_without(place: Key) -> Key:
    """The place of a number without what is massive."""
    return replace(place, massive="without")


@torch.no_grad()
def dictionary_without(dictionary: Dictionary, massive: Massive) -> Dictionary:
    """The dictionary deaf to what is massive, and writing nothing of it.

    Of a row its latents are those of the same row with the massive components of its decoder bias.
    A base dictionary that is asked about a delta is else asked about a stream from which the large
    constants are missing, which tells nothing of the delta.
    """
    return dictionary.with_tensors(
        {
            "encoder": massive.without(dictionary.encoder.T).T.contiguous(),
            "directions": massive.without(dictionary.directions),
            "decoder_bias": massive.without(dictionary.decoder_bias),
        }
    )


def covariance_without(covariance: Float[Tensor, "d d"], massive: Massive) -> Float[Tensor, "d d"]:
    """The covariance of rows with what is massive projected out."""
    return massive.without(massive.without(covariance).T)


def nulls_without(nulls: NullSettings, massive: Massive) -> NullSettings:
    """Chance levels of directions from which what is massive is projected out."""
    covariances = {
        name: None if covariance is None else covariance_without(covariance, massive)
        for name, covariance in (
            ("delta_covariance", nulls.delta_covariance),
            ("base_covariance", nulls.base_covariance),
        )
    }
    trained = {name: massive.without(each) for name, each in nulls.trained.items()}
    return replace(nulls, **covariances, trained=trained)  # type: ignore[arg-type]


def judged_without(estimates: Sequence[Estimate]) -> list[Estimate]:
    """The same numbers; where a measure was taken at a site without what is massive too, those
    numbers alone are judged.

    What a few coordinates with most of the energy say of an adapter is no verdict on the rest.
    """
    apart = {(e.measure, e.key.site) for e in estimates if e.key.massive}
    return [
        replace(e, judged=False) if not e.key.massive and (e.measure, e.key.site) in apart else e
        for e in estimates
    ]
