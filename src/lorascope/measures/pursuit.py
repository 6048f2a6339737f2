"""How well few directions express the delta, whatever an encoder finds.

The delta rows are expressed by k directions at a time, chosen and fitted afresh for each row, from
the base dictionary, the delta dictionary and as many random directions: where the base encoder
fails and this does not, the encoder is at fault; where this fails too, the directions are. k
principal components stand beside them.

The delta dictionary's bias is given to every set of directions as one more that does not count:
none has to spend its k on what all deltas share, and all are offered the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import (
    covariance_root,
    directions_from_root,
    isotropic,
    norm_matched,
    random_subspace,
)
from lorascope.geometry.pursuit import principal_components, pursue, subspace_residuals
from lorascope.measures.firing import firing
from lorascope.measures.reconstruction import Errors, errors
from lorascope.measures.rows import HeldOut, by_document, shared_out
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import BASE, DELTA, PCA
from lorascope.results.null_names import (
    COVARIANCE,
    DELTA_BIAS,
    ISOTROPIC,
    MEAN_DELTA,
    NORM_MATCHED,
    SUBSPACE,
)
from lorascope.stats.documents import ratio

MOST_ROWS, FEWEST_ROWS = 1024, 256
MOST_ACTIVE = 128
NULL_REPEATS = 5
# Rows of one draw of random rows for the gap's null.
GAP_ROWS = 256
# Multiplications of one search over all rows; wide dictionaries get fewer rows.
_WORK = 10**12

# Relative error and FVU.
PURSUIT = ("pursuit.relative_error", "pursuit.fvu")
COMPONENTS = ("pca.relative_error", "pca.fvu")

Steps = Float[Tensor, "rows steps"]


@dataclass(frozen=True, eq=False)
class Deltas:
    """The rows to express."""

    rows: Float[Tensor, "rows d"]
    documents: Int[Tensor, " rows"]

    @classmethod
    def sampled(cls, held_out: HeldOut, most: int, seed: int) -> Deltas:
        """At most `most` rows, shared out over the documents."""
        documents = held_out.documents
        if len(documents) <= most:
            return cls(held_out.delta, documents)
        kept = shared_out(documents.cpu(), most, generator(seed, "pursuit rows"))
        return cls(held_out.delta[kept.to(held_out.delta.device)], documents[kept])

    def relative(self, residuals: Float[Tensor, " rows"]) -> Errors:
        """Residual norms beside the rows' norms."""
        return Errors(self.rows.norm(dim=-1).to(residuals), residuals, self.documents)

    def centred(self, residuals: Float[Tensor, " rows"]) -> Errors:
        """Residual norms beside the rows' distances from their mean."""
        distances = (self.rows - self.rows.mean(dim=0)).norm(dim=-1)
        return Errors(distances.to(residuals), residuals, self.documents)


def pursuit_estimates(
    base: Dictionary,
    learned: Dictionary,
    held_out: HeldOut,
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    place: Key,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
    active: Mapping[str, int] | None = None,
) -> list[Estimate]:
    """Errors of k-sparse pursuit and of k principal components, and each encoder's gap to pursuit.

    k is the delta dictionary's mean L0 on the deltas, rounded, and the base dictionary's where it
    differs: 1 to 128, never more than latents or dimensions; `key.k` says it. Dictionaries are
    `labels.BASE`, `DELTA` and `PCA`. Dead latents' directions take part.

    At most 1,024 rows are used, down to 256 for wide dictionaries, the same ones for values and
    chance levels; rows of every document while there are enough.

    Args:
        base: the base dictionary G.
        learned: the delta dictionary D.
        mean: mean of the probe deltas, which the components start from.
        covariance: of the probe deltas; gives the components and the covariance-matched null.
        repeats: draws of each null, 2 or more; 0 for the numbers alone.
        active: k of "base" and "delta", where another condition's are to be used.

    Raises:
        InputError: widths that differ, no rows, or fewer than two draws.
    """
    _check(base, learned, held_out, covariance, repeats)
    deltas = Deltas.sampled(held_out, MOST_ROWS, seed)
    active = active or active_latents(base, learned, held_out, seed)
    sizes = sorted(set(active.values()))
    most = _rows_within(_WORK, max(base.n_latents, learned.n_latents) * base.d_model * sizes[-1])
    deltas = Deltas.sampled(held_out, most, seed)
    given = learned.decoder_bias
    drawn: dict[int, dict[str, list[Steps]]] = {}
    found: list[Estimate] = []
    for name, dictionary in ((BASE, base), (DELTA, learned)):
        n, here = dictionary.n_latents, replace(place, dictionary=name)
        if n not in drawn:
            drawn[n] = _random_steps(deltas, n, covariance, given, sizes[-1], seed, repeats)
        steps = pursue(deltas.rows, dictionary.directions, sizes[-1], given).residuals
        nulls = {**drawn[n], DELTA_BIAS: [steps[:, :1].expand_as(steps)]}
        for k in sizes:
            found += _error_estimates(PURSUIT, deltas, steps, nulls, k, here)
        k = active[name]
        found.append(_gap(dictionary, deltas, steps[:, k], given, k, here, seed, repeats))
    return found + pca_estimates(deltas, mean, covariance, sizes, place, seed, repeats)


def direction_estimates(
    dictionary: Dictionary,
    held_out: HeldOut,
    place: Key,
    seed: int,
    active: Mapping[str, int],
) -> list[Estimate]:
    """Errors and gap of one delta dictionary alone, without chance levels.

    Args:
        active: k of "base" and "delta", as for the dictionary it stands in for.
    """
    here = replace(place, dictionary=DELTA)
    sizes = sorted(set(active.values()))
    most = _rows_within(_WORK, dictionary.n_latents * dictionary.d_model * sizes[-1])
    deltas = Deltas.sampled(held_out, most, seed)
    given, k = dictionary.decoder_bias, active[DELTA]
    steps = pursue(deltas.rows, dictionary.directions, sizes[-1], given).residuals
    found = [e for k in sizes for e in _error_estimates(PURSUIT, deltas, steps, {}, k, here)]
    return [*found, _gap(dictionary, deltas, steps[:, k], given, k, here, seed, 0)]


def pca_estimates(
    deltas: Deltas,
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    sizes: Sequence[int],
    place: Key,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
) -> list[Estimate]:
    """Errors of x̂ = mean + (x − mean) projected on k principal components of other rows.

    Args:
        mean, covariance: of the rows the components are fitted on, not of these.
        sizes: every k, 1 to the width of the rows.
    """
    most, d = max(sizes), deltas.rows.shape[1]
    mean = mean.to(deltas.rows)
    steps = subspace_residuals(deltas.rows, mean, principal_components(covariance, most))
    draws = [generator(seed, SUBSPACE, repeat) for repeat in range(repeats)]
    nulls = {
        SUBSPACE: [
            subspace_residuals(deltas.rows, mean, random_subspace(d, most, r).to(mean))
            for r in draws
        ],
        MEAN_DELTA: [steps[:, :1].expand_as(steps)],
    }
    here = replace(place, dictionary=PCA)
    return [
        estimate
        for k in sizes
        for estimate in _error_estimates(COMPONENTS, deltas, steps, nulls, k, here)
    ]


def _check(
    base: Dictionary,
    learned: Dictionary,
    held_out: HeldOut,
    covariance: Float[Tensor, "d d"],
    repeats: int,
) -> None:
    widths = (base.d_model, learned.d_model, held_out.delta.shape[1], *covariance.shape)
    if len(set(widths)) > 1:
        raise InputError(
            f"pursuit: base dictionary, delta dictionary, rows and covariance are {widths} wide; "
            "take all four from the same site"
        )
    if not len(held_out):
        raise InputError("pursuit: there are no held-out rows; add held-out texts")
    if repeats < 0 or repeats == 1:
        raise InputError(f"{repeats} draws of a null have no spread; ask for 2 or more, or for 0")


def active_latents(
    base: Dictionary, learned: Dictionary, held_out: HeldOut, seed: int = 0
) -> dict[str, int]:
    """Mean L0 of the "base" and "delta" dictionaries on the rows that pursuit takes."""
    rows = Deltas.sampled(held_out, MOST_ROWS, seed).rows
    return {BASE: _active(base, rows), DELTA: _active(learned, rows)}


def _active(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> int:
    """Mean L0, rounded, within what pursuit is asked for."""
    mean = firing(dictionary, rows).per_row.double().mean().item()
    return min(max(round(mean), 1), MOST_ACTIVE, dictionary.n_latents, dictionary.d_model)


def _rows_within(work: int, work_a_row: int) -> int:
    return max(FEWEST_ROWS, min(MOST_ROWS, work // work_a_row))


def _random_steps(
    deltas: Deltas,
    n: int,
    covariance: Float[Tensor, "d d"],
    given: Float[Tensor, " d"],
    k: int,
    seed: int,
    repeats: int,
) -> dict[str, list[Steps]]:
    """Residual norms after 0 … k choices among n random directions, each null's draws."""
    root = covariance_root(covariance)
    draws: dict[str, Callable[[torch.Generator], Tensor]] = {
        COVARIANCE: lambda random: directions_from_root(n, root, random),
        ISOTROPIC: lambda random: isotropic(n, len(root), random),
    }
    return {
        null: [
            pursue(
                deltas.rows, draw(generator(seed, "pursuit", null, i)).to(given), k, given
            ).residuals
            for i in range(repeats)
        ]
        for null, draw in draws.items()
    }


def _error_estimates(
    measures: tuple[str, str],
    deltas: Deltas,
    steps: Steps,
    nulls: dict[str, list[Steps]],
    k: int,
    place: Key,
) -> Iterator[Estimate]:
    """Relative error and FVU, the two `measures`, after k choices."""
    place = replace(place, k=k)
    error, left = deltas.relative(steps[:, k]), deltas.centred(steps[:, k])
    yield Estimate(
        measures[0],
        error.mean,
        error.mean_interval,
        len(steps),
        "ratio",
        _chances(nulls, k, lambda residuals: deltas.relative(residuals).mean),
        place,
    )
    low, high = left.frobenius_interval
    yield Estimate(
        measures[1],
        left.frobenius**2,
        (low**2, high**2),
        len(steps),
        "share",
        _chances(nulls, k, lambda residuals: deltas.centred(residuals).frobenius ** 2),
        place,
    )


def _chances(
    nulls: dict[str, list[Steps]], k: int, read: Callable[[Float[Tensor, " rows"]], float]
) -> tuple[Null, ...]:
    return tuple(
        Null.drawn(null, [read(steps[:, k]) for steps in draws], low=0.0)
        for null, draws in nulls.items()
        if draws
    )


def _gap(
    dictionary: Dictionary,
    deltas: Deltas,
    residuals: Float[Tensor, " rows"],
    given: Float[Tensor, " d"],
    k: int,
    place: Key,
    seed: int,
    repeats: int,
) -> Estimate:
    """The encoder's relative error less that of pursuit with as many of its directions."""
    place = replace(place, k=k)
    differences = _excess(dictionary, deltas, residuals)
    value, interval = ratio(*by_document(differences, deltas.documents))
    drawn = []
    for repeat in range(repeats):
        random = generator(seed, "pursuit gap", repeat)
        picked = torch.randint(len(deltas.rows), (GAP_ROWS,), generator=random)
        rows = norm_matched(deltas.rows[picked], random)
        noise = Deltas(rows, torch.arange(len(rows)))
        steps = pursue(rows, dictionary.directions, k, given).residuals
        drawn.append(_excess(dictionary, noise, steps[:, k]).mean().item())
    return Estimate(
        "pursuit.gap",
        value,
        interval,
        len(differences),
        "ratio",
        (Null.drawn(NORM_MATCHED, drawn),) if drawn else (),
        place,
    )


def _excess(
    dictionary: Dictionary, deltas: Deltas, residuals: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Relative error of the dictionary itself less that of `residuals`, row by row."""
    own = errors(dictionary, deltas.rows, deltas.documents).relative.double()
    return own - deltas.relative(residuals).relative.to(own)
