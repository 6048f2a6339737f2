"""How far two dictionaries agree: max cosine and principal angles.

Every number is computed a second time under each null, from random directions that share
with the real ones everything but the relation in question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.errors import InputError, kind_of, require_kind
from lorascope.geometry import chance, cosine, subspaces
from lorascope.measures.definitions import definition
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import BASE_COVARIANCE, COVARIANCE, ISOTROPIC, ROTATED
from lorascope.stats import intervals
from lorascope.stats.clusters import clusters, mean_interval, quantile_interval, share_interval

_GROUPS = 10
_BOUNDS = {"cosine": (-1.0, 1.0), "share": (0.0, 1.0), "degrees": (0.0, 90.0), "CKA": (-1.0, 1.0)}

Numbers = Mapping[str, float]
Bounds = Mapping[str, intervals.Interval]
Draw = Callable[[torch.Generator], Tensor]
Spans = list[Tensor]


def check_repeats(repeats: int) -> None:
    """Refuse a single draw, which has no spread; raises InputError."""
    if repeats < 0 or repeats == 1:
        raise InputError(f"{repeats} draws of a null have no spread; ask for 2 or more, or for 0")


@dataclass(frozen=True, eq=False)
class NullSettings:
    """How the chance levels of two dictionaries' directions are drawn.

    Attributes:
        delta_covariance: of the deltas; gives the null `COVARIANCE`.
        base_covariance: of the base activations; gives `BASE_COVARIANCE`.
        repeats: draws of each null; 0 for the numbers alone.
        seed: of the draws.
        max_directions: most random directions in one draw of a cosine null. Fewer than there are
            latents leave the level as it is and make its interval wider, never narrower.
        trained: {null: directions of a dictionary trained on a control}, further nulls; their
            intervals are over latents.
    """

    delta_covariance: Float[Tensor, "d d"] | None = None
    base_covariance: Float[Tensor, "d d"] | None = None
    repeats: int = 20
    seed: int = 0
    max_directions: int = 4096
    trained: Mapping[str, Float[Tensor, "n d"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_repeats(self.repeats)
        if self.max_directions < 2:
            raise InputError(f"max_directions is {self.max_directions}; ask for 2 or more")

    def roots(self, like: Float[Tensor, "m d"]) -> Iterator[tuple[str, Float[Tensor, "d d"]]]:
        """Each given covariance's null name and root, on the device of `like`."""
        for name, covariance in (
            (COVARIANCE, self.delta_covariance),
            (BASE_COVARIANCE, self.base_covariance),
        ):
            if covariance is None:
                continue
            d = like.shape[1]
            if covariance.shape != (d, d):
                raise InputError(
                    f"the {name} null's covariance has shape {tuple(covariance.shape)} but the "
                    f"directions are {d} wide; pass the covariance of the same site"
                )
            yield name, chance.covariance_root(covariance.to(like.device))


class HasDirections(Protocol):
    """A dictionary, as far as its geometry goes."""

    @property
    def directions(self) -> Float[Tensor, "n d"]:
        """Decoder rows."""


def _compared(first: Tensor, second: Tensor, alive: Tensor | None) -> tuple[Tensor, Tensor]:
    """The alive rows of `first`, and `second` on the same device; checked against each other."""
    for name, directions in (("first", first), ("second", second)):
        if directions.ndim != 2 or not len(directions):
            raise InputError(
                f"the {name} dictionary's directions have shape {tuple(directions.shape)}; "
                "pass [n_latents, d_model] with at least one latent"
            )
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"directions are {first.shape[1]} and {second.shape[1]} wide; "
            "compare dictionaries of the same model"
        )
    if alive is not None:
        if alive.shape != first.shape[:1] or alive.dtype != torch.bool:
            raise InputError(
                f"alive is {alive.dtype} of shape {tuple(alive.shape)} for {len(first)} latents; "
                "pass one bool a latent"
            )
        first = first[alive.to(first.device)]
        if not len(first):
            raise InputError("no latent of the first dictionary is alive; train it on more tokens")
    return first.detach(), second.detach().to(first.device)


def alignment_estimates(
    values: Numbers,
    bounds: Bounds,
    draws: Mapping[str, Sequence[Numbers]],
    n: int,
    place: Key,
    trained: Mapping[str, tuple[Numbers, Bounds]] | None = None,
) -> list[Estimate]:
    """One `Estimate` a measure, its chance levels in the order of `draws` (null → draws), then
    those of `trained` dictionaries (null → numbers and their intervals)."""
    estimates = []
    for measure, value in values.items():
        unit = definition(measure).unit
        chances = []
        for null, repeats in draws.items():
            if not repeats:
                continue
            drawn = [numbers[measure] for numbers in repeats]
            low, high = intervals.within(intervals.prediction_interval(drawn), *_BOUNDS[unit])
            level = min(max(sum(drawn) / len(drawn), low), high)
            chances.append(Null(null, level, low, high))
        for null, (numbers, around) in (trained or {}).items():
            low, high = intervals.within(around[measure], *_BOUNDS[unit])
            chances.append(Null(null, numbers[measure], low, high))
        interval = intervals.within(bounds[measure], *_BOUNDS[unit])
        estimates.append(Estimate(measure, value, interval, n, unit, tuple(chances), place))
    return estimates


def jackknife(values: Numbers, left_out: Sequence[Numbers]) -> Bounds:
    """Interval of every number from the same numbers without each group in turn."""
    interval = intervals.jackknife_interval
    return {m: interval(value, [numbers[m] for numbers in left_out]) for m, value in values.items()}


def _cosine_numbers(s: Float[Tensor, " n"]) -> dict[str, float]:
    s = s.double()
    return {
        "max_cosine.mean": s.mean().item(),
        "max_cosine.median": s.quantile(0.5).item(),
        "max_cosine.q90": s.quantile(0.9).item(),
        "max_cosine.above_0.7": (s > 0.7).double().mean().item(),
        "max_cosine.below_0.3": (s < 0.3).double().mean().item(),
    }


def _cosine_intervals(
    s: Float[Tensor, " n"], directions: Float[Tensor, "n d"]
) -> dict[str, intervals.Interval]:
    """Over clusters of near-copies among the directions."""
    labels = clusters(directions)
    return {
        "max_cosine.mean": mean_interval(s, labels),
        "max_cosine.median": quantile_interval(s, 0.5, labels),
        "max_cosine.q90": quantile_interval(s, 0.9, labels),
        "max_cosine.above_0.7": share_interval(s > 0.7, labels),
        "max_cosine.below_0.3": share_interval(s < 0.3, labels),
    }


def _cosine_nulls(first: Tensor, nulls: NullSettings) -> Iterator[tuple[str, Draw]]:
    """Each null's name and its draw of at most `max_directions` directions."""
    n, d = min(len(first), nulls.max_directions), first.shape[1]

    def rotated(random: torch.Generator) -> Tensor:
        kept = torch.randperm(len(first), generator=random)[:n].to(first.device)
        return chance.rotated(first[kept], random)

    for name, root in nulls.roots(first):
        yield name, partial(chance.directions_from_root, n, root)
    yield ISOTROPIC, lambda random: chance.isotropic(n, d, random).to(first.device)
    yield ROTATED, rotated


def max_cosine_estimates(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m d"],
    *,
    nulls: NullSettings,
    place: Key,
    alive: Bool[Tensor, " n"] | None = None,
) -> list[Estimate]:
    """How close each alive direction of `first` comes to any direction of `second` (equation 8).

    Mean, median, 90th percentile, shares above 0.7 and below 0.3, all five from one pass. Not
    symmetric: `second` is searched. Nulls, where given: covariance-matched, base
    covariance-matched; always: isotropic, rotated; then trained ones. InputError for shapes that
    do not fit.
    """
    first, second = _compared(first, second, alive)
    s, _ = cosine.max_cosine(first, second)
    draws = {
        name: [
            _cosine_numbers(
                cosine.max_cosine(draw(generator(nulls.seed, "max_cosine", name, i)), second)[0]
            )
            for i in range(nulls.repeats)
        ]
        for name, draw in _cosine_nulls(first, nulls)
    }
    trained = {}
    for name, directions in nulls.trained.items():
        own = _compared(directions, second, None)[0].to(second)
        t, _ = cosine.max_cosine(own, second)
        trained[name] = (_cosine_numbers(t), _cosine_intervals(t, own))
    bounds = _cosine_intervals(s, first)
    return alignment_estimates(_cosine_numbers(s), bounds, draws, len(s), place, trained)


def max_cosine(
    first: HasDirections | Tensor, second: HasDirections | Tensor, seed: int = 0
) -> Estimate:
    """Mean over `first`'s directions of the largest cosine with one of `second`'s.

    Takes dictionaries or [n_latents, d_model] tensors; all latents count, dead ones too. Nulls:
    isotropic and rotated. With the data's covariance at hand use `max_cosine_estimates`.

    Raises:
        InputError: one of the two is neither, or they are of different widths.

    Examples:
        >>> import torch
        >>> draws = torch.Generator().manual_seed(0)
        >>> one = torch.randn(40, 16, generator=draws)
        >>> ls.max_cosine(one, one + 0.1 * torch.randn(40, 16, generator=draws)).verdict
        'above'
    """
    require_kind(seed, Integral, "the seed", "a whole number")
    a, b = (_directions(*each) for each in (("first", first), ("second", second)))
    return max_cosine_estimates(a, b, nulls=NullSettings(seed=seed), place=Key(seed=seed))[0]


def _directions(which: str, of: HasDirections | Tensor) -> Tensor:
    found = of if isinstance(of, Tensor) else getattr(of, "directions", None)
    if isinstance(found, Tensor) and found.is_floating_point():
        return found
    said = f"a tensor of {found.dtype}" if isinstance(found, Tensor) else kind_of(of)
    raise InputError(
        f"the {which} dictionary is {said}: give a dictionary (fit and open_dictionary make one) "
        "or its directions, a floating-point tensor [n_latents, d_model]"
    )


def _subspace(directions: Tensor, k: int, whose: str, gram: Tensor | None = None) -> Tensor:
    try:
        return subspaces.principal_subspace(directions, k, gram)
    except ValueError:
        rank = subspaces.numerical_rank(directions)
        raise InputError(
            f"principal angles with k={k}: {whose} spans {rank} dimensions; choose k ≤ {rank}"
        ) from None


def _angle_numbers(
    first: Float[Tensor, "d k_max"], second: Float[Tensor, "d k_max"], k: int
) -> dict[str, float]:
    angles = subspaces.principal_angles(first[:, :k], second[:, :k])
    return {
        "angle.mean": angles.mean().item(),
        "angle.min": angles[0].item(),
        "angle.above_70": (angles > 70).double().mean().item(),
        "angle.below_20": (angles < 20).double().mean().item(),
    }


def _angle_nulls(first: Tensor, k: int, nulls: NullSettings) -> Iterator[tuple[str, Draw]]:
    """Each null's name and its draw of a k-dimensional subspace."""
    n, d = first.shape

    def matched(name: str, root: Tensor, random: torch.Generator) -> Tensor:
        drawn = chance.directions_from_root(n, root, random)
        return _subspace(drawn, k, f"a draw of the {name} null")

    for name, root in nulls.roots(first):
        yield name, partial(matched, name, root)
    yield ISOTROPIC, lambda random: chance.random_subspace(d, k, random, first.device)


def angle_estimates(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m d"],
    *,
    k: int | Sequence[int],
    nulls: NullSettings,
    place: Key,
    alive: Bool[Tensor, " n"] | None = None,
) -> list[Estimate]:
    """Principal angles in degrees between the top-k subspaces of two dictionaries (equation 9).

    Mean, smallest, shares above 70° and below 20°; `key.k` says k. Several k share one
    decomposition of each set. Interval: `first` without each tenth of its latents in turn. Nulls,
    where given: covariance-matched, base covariance-matched, of as many directions as `first` has
    alive; always: isotropic; then trained ones. InputError where k exceeds what either dictionary,
    a tenth left out, or a null's draw spans.
    """
    sizes = [k] if isinstance(k, int) else list(k)
    if not sizes or min(sizes) < 1:
        raise InputError(f"principal angles need k of 1 or more, got {k}")
    first, second = (cosine.unit_rows(x) for x in _compared(first, second, alive))
    widest = max(sizes)
    reference = _subspace(second, widest, "the second dictionary")
    spans = _with_tenths_left_out(first, widest, "the first dictionary")
    trained = {}
    for name, directions in nulls.trained.items():
        units = cosine.unit_rows(_compared(directions, second, None)[0].to(second))
        # One that spans too little has no such subspace to compare.
        with suppress(InputError):
            trained[name] = _with_tenths_left_out(units, widest, name)
    drawn: dict[str, dict[int, list[Numbers]]] = {}
    for name, draw in _angle_nulls(first, widest, nulls):
        null = [draw(generator(nulls.seed, "angle", name, i)) for i in range(nulls.repeats)]
        drawn[name] = {size: [_angle_numbers(q, reference, size) for q in null] for size in sizes}
    estimates = []
    for size in sizes:
        values, bounds = _angles_and_bounds(spans, reference, size)
        controls = {name: _angles_and_bounds(q, reference, size) for name, q in trained.items()}
        draws = {name: by_size[size] for name, by_size in drawn.items()}
        here = replace(place, k=size)
        estimates += alignment_estimates(values, bounds, draws, size, here, controls)
    return estimates


def _with_tenths_left_out(directions: Float[Tensor, "n d"], k: int, whose: str) -> Spans:
    """The top-k subspace, then those without each tenth of the directions in turn."""
    # Near-copies are left out together.
    group = clusters(directions).to(directions.device) % _GROUPS
    gram = subspaces.gram_matrix(directions)
    spans = [_subspace(directions, k, f"{whose}'s alive latents", gram)]
    for g in range(_GROUPS):
        without = gram - subspaces.gram_matrix(directions[group == g])
        what = f"{whose} with a tenth left out"
        spans.append(_subspace(directions[group != g], k, what, without))
    return spans


def _angles_and_bounds(spans: Spans, reference: Tensor, k: int) -> tuple[Numbers, Bounds]:
    values, *without = (_angle_numbers(q, reference, k) for q in spans)
    return values, jackknife(values, without)
