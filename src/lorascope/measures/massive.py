"""What holds most of a stream's energy, and numbers weighted by energy without it.

Massive coordinates and directions (`activations.massive`) are found in the base stream. Without
them means: projected out of base rows, deltas, reconstructions, directions and covariances alike.
The keys of such numbers say so in `massive`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.massive import Massive
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.chance import norm_matched
from lorascope.measures import cka, norms, reconstruction
from lorascope.measures.alignment import NullSettings
from lorascope.measures.reconstruction import NULL_REPEATS, NULL_ROWS, Errors
from lorascope.measures.rows import HeldOut, chunks
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.stats.intervals import UNKNOWN

Rows = Float[Tensor, "rows d"]


def share_estimate(massive: Massive, rows: int, place: Key) -> Estimate:
    """Share of the base stream's energy in what is massive; `rows` were looked at."""
    return Estimate("massive.share", massive.share, UNKNOWN, rows, "share", (), place)


def without(rows: HeldOut, massive: Massive) -> HeldOut:
    """The rows of base and delta with what is massive projected out."""
    return replace(rows, base=massive.without(rows.base), delta=massive.without(rows.delta))


def place_without(place: Key) -> Key:
    """The place of a number without what is massive."""
    return replace(place, massive="without")


def size_estimates(
    rows: HeldOut, massive: Massive, floor: float, place: Key, seed: int = 0
) -> list[Estimate]:
    """Delta norm, its ratio to the base norm and effective rank, without what is massive.

    Args:
        floor: mean norm of numeric noise in the whole stream, which that in a part of it does not
            exceed.
    """
    left, here = without(rows, massive), place_without(place)
    return [*norms.norm_estimates(left, floor, here), norms.rank_estimate(left, here, seed)]


def cka_estimates(
    base: Rows,
    deltas: Mapping[str, Rows],
    documents: Int[Tensor, " rows"],
    massive: Massive,
    places: Mapping[str, Key],
    repeats: int = 20,
    seed: int = 0,
) -> list[Estimate]:
    """CKA of a site's base rows and each adapter's, without what is massive.

    Raises:
        InputError: as `cka.site_cka_estimates`.
    """
    return cka.site_cka_estimates(
        massive.without(base),
        {adapter: massive.without(delta) for adapter, delta in deltas.items()},
        documents,
        places={adapter: place_without(place) for adapter, place in places.items()},
        repeats=repeats,
        seed=seed,
    )


@torch.no_grad()
def errors_without(
    predict: Callable[[Rows], Rows], rows: Rows, documents: Int[Tensor, " rows"], massive: Massive
) -> Errors:
    """As `reconstruction.errors`: `predict` sees the whole rows, and what it leaves of them is
    looked at without what is massive."""
    residuals = [massive.without(chunk - predict(chunk)).norm(dim=-1) for chunk in chunks(rows)]
    return Errors(massive.without(rows).norm(dim=-1), torch.cat(residuals), documents)


def error_estimates(
    dictionary: Dictionary,
    rows: HeldOut,
    training_mean: Float[Tensor, " d"],
    massive: Massive,
    place: Key,
    controls: Mapping[str, Errors] | None = None,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
) -> list[Estimate]:
    """Relative error of the deltas, and its Frobenius form, without what is massive.

    Nulls as for the whole rows (`reconstruction.null_errors`), likewise without.

    Args:
        controls: {null: `errors_without` of a dictionary trained on a control}.
        repeats: draws of the random null; 0 for the numbers alone, without any null.
    """
    found = errors_without(dictionary, rows.delta, rows.documents, massive)
    if not repeats:
        return reconstruction.error_estimates(found, [], place_without(place))
    some = rows.first(NULL_ROWS)
    drawn = [
        errors_without(
            dictionary,
            norm_matched(some.delta, generator(seed, "norm-matched", repeat)),
            some.documents,
            massive,
        )
        for repeat in range(repeats)
    ]
    constants = {
        "zero predictor": torch.zeros_like(training_mean),
        "mean of the training deltas": training_mean,
        "decoder bias alone": dictionary.decoder_bias,
    }
    nulls = [
        ("norm-matched random", drawn),
        *(
            (name, [errors_without(each.expand_as, rows.delta, rows.documents, massive)])
            for name, each in constants.items()
        ),
        *((name, [errors]) for name, errors in (controls or {}).items()),
    ]
    return reconstruction.error_estimates(found, nulls, place_without(place))


def nulls_without(nulls: NullSettings, massive: Massive) -> NullSettings:
    """Chance levels of directions from which what is massive is projected out."""

    def projected(covariance: Float[Tensor, "d d"] | None) -> Float[Tensor, "d d"] | None:
        return None if covariance is None else massive.without(massive.without(covariance).T)

    return replace(
        nulls,
        delta_covariance=projected(nulls.delta_covariance),
        base_covariance=projected(nulls.base_covariance),
        trained={name: massive.without(each) for name, each in nulls.trained.items()},
    )
