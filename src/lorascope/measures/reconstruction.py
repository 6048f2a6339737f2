"""How well a dictionary reconstructs rows, compared with simpler predictors.

relative error: mean over rows of ‖x − x̂‖₂ / ‖x‖₂; predicting zero gives exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.chance import norm_matched, random_rotation
from lorascope.measures.rows import HeldOut, by_document, chunks
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import BIAS, MEAN_DELTA, NORM_MATCHED, ROTATED, ZERO
from lorascope.stats.documents import one_less, ratio
from lorascope.stats.intervals import Interval, or_point

NULL_ROWS = 4096
NULL_REPEATS = 5
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class Errors:
    """Norms of rows and of what a predictor leaves of them."""

    norms: Float[Tensor, " rows"]
    residuals: Float[Tensor, " rows"]
    documents: Int[Tensor, " rows"]

    @property
    def relative(self) -> Float[Tensor, " rows"]:
        """‖x − x̂‖/‖x‖ a row; rows of norm zero count as 0 where x̂ is zero too, else as 1."""
        ratio = self.residuals / self.norms.clamp(min=1e-30)
        return torch.where(self.norms > 0, ratio, (self.residuals > 0).to(ratio.dtype))

    @property
    def mean(self) -> float:
        """The relative error."""
        return self._mean[0]

    @property
    def frobenius(self) -> float:
        """√Σ‖x − x̂‖² / √Σ‖x‖²."""
        return math.sqrt(self._squares[0])

    @property
    def mean_interval(self) -> Interval:
        """Of the relative error, over documents."""
        return self._mean[1]

    @property
    def frobenius_interval(self) -> Interval:
        """Of the Frobenius ratio, over documents."""
        low, high = self._squares[1]
        return math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))

    @cached_property
    def _mean(self) -> tuple[float, Interval]:
        return ratio(*by_document(self.relative, self.documents))

    @cached_property
    def _squares(self) -> tuple[float, Interval]:
        residuals, counts = by_document(self.residuals.double().square(), self.documents)
        norms, _ = by_document(self.norms.double().square(), self.documents)
        return ratio(residuals, norms, counts)


@torch.no_grad()
def errors(predict: Callable[[Rows], Rows], rows: Rows, documents: Tensor) -> Errors:
    """Norms and residual norms of `predict` over rows, a chunk at a time."""
    residuals = torch.cat([(chunk - predict(chunk)).norm(dim=-1) for chunk in chunks(rows)])
    return Errors(rows.norm(dim=-1), residuals, documents)


@torch.no_grad()
def difference_errors(dictionary: Dictionary, rows: HeldOut) -> Errors:
    """Errors of G(h_adapted) − G(h_base) as a reconstruction of h_Δ: the base dictionary is asked
    about the streams it was made for, not about their difference."""
    residuals = [
        (delta - dictionary(base + delta) + dictionary(base)).norm(dim=-1)
        for base, delta in zip(chunks(rows.base), chunks(rows.delta), strict=True)
    ]
    return Errors(rows.delta.norm(dim=-1), torch.cat(residuals), rows.documents)


def null_errors(
    dictionary: Dictionary, rows: HeldOut, training_mean: Float[Tensor, " d"], seed: int
) -> list[tuple[str, list[Errors]]]:
    """Each null's name and its draws, the headline null first.

    Norm-matched random vectors through the same dictionary; then the zero predictor, the mean of
    the training deltas and the decoder bias alone, each on the real rows.
    """
    some = rows.first(NULL_ROWS)
    drawn = []
    for repeat in range(NULL_REPEATS):
        random = generator(seed, "norm-matched", repeat)
        drawn.append(errors(dictionary, norm_matched(some.delta, random), some.documents))
    trivial = {
        ZERO: torch.zeros_like(training_mean),
        MEAN_DELTA: training_mean,
        BIAS: dictionary.decoder_bias,
    }
    return [
        (NORM_MATCHED, drawn),
        *((n, [errors(c.expand_as, rows.delta, rows.documents)]) for n, c in trivial.items()),
    ]


def error_estimates(
    found: Errors, nulls: list[tuple[str, list[Errors]]], place: Key
) -> list[Estimate]:
    """The relative error and its Frobenius form with their chance levels."""
    both = (
        ("relative_error", found.mean, found.mean_interval, lambda e: e.mean),
        (
            "relative_error.frobenius",
            found.frobenius,
            found.frobenius_interval,
            lambda e: e.frobenius,
        ),
    )
    estimates = []
    for measure, value, interval, read in both:
        chances = tuple(Null.drawn(name, [read(e) for e in draws]) for name, draws in nulls)
        estimates.append(
            Estimate(measure, value, interval, len(found.norms), "ratio", chances, place)
        )
    return estimates


def improvement(
    base: Errors,
    learned: Errors,
    dictionary: Dictionary,
    controls: Mapping[str, Errors],
    rows: HeldOut,
    place: Key,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
) -> Estimate:
    """(ε_G − ε_D)/ε_G on held-out rows (table 7).

    Args:
        base: errors of the base dictionary G on the deltas.
        learned: errors of the delta dictionary D on them.
        dictionary: D, turned at random for the rotated null.
        controls: {null: errors on the deltas of a dictionary trained on what was made from them}.
        repeats: draws of the rotated null; 0 to leave it out.
    """
    chances = []
    for null, control in controls.items():
        level, around = _improved(base, control)
        chances.append(Null(null, level, *or_point(level, around)))
    some = rows.first(NULL_ROWS)
    reference = Errors(
        base.norms[: len(some)], base.residuals[: len(some)], base.documents[: len(some)]
    ).mean
    drawn = []
    for repeat in range(repeats):
        turn = random_rotation(dictionary.d_model, generator(seed, ROTATED, repeat))
        turned = errors(dictionary.rotated(turn), some.delta, some.documents)
        drawn.append(1 - turned.mean / reference)
    if drawn:
        chances.append(Null.drawn(ROTATED, drawn))
    value, interval = _improved(base, learned)
    return Estimate(
        "improvement",
        value,
        interval,
        len(rows),
        "share",
        tuple(chances),
        replace(place, dictionary="delta"),
    )


def _improved(base: Errors, other: Errors) -> tuple[float, Interval]:
    reference, counts = by_document(base.relative, base.documents)
    compared, _ = by_document(other.relative, other.documents)
    return one_less(ratio(compared, reference, counts))
