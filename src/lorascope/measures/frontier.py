"""Loss against the time it took: who reaches a loss first, and by how much (section 4.2).

A curve is a number of trained things with the seconds each took and its held-out losses by
document. The loss reached by some time is the lowest so far; between two points of it time is
interpolated linearly. Intervals are percentiles of resamples that draw the same documents for all
points of all curves: a time may have no end, which other intervals cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import EQUALLY_FAST
from lorascope.stats.documents import ratio, weights
from lorascope.stats.intervals import MIN_DOCUMENTS, UNKNOWN, Interval


@dataclass(frozen=True, eq=False)
class Point:
    """One trained thing.

    Attributes:
        seconds: wall clock of everything that went into it.
        tokens: likewise.
        loss: −log p summed by document on the held-out text, nats.
        scored: scored tokens of each document.
    """

    seconds: float
    tokens: int
    loss: Float[Tensor, " documents"]
    scored: Float[Tensor, " documents"]

    @property
    def mean_loss(self) -> float:
        """Cross-entropy, nats/token."""
        return ratio(self.loss, self.scored)[0]


Curve = Sequence[Point]
_REPEATS = 1000
_ENDS = (0.025, 0.975)
# Stands for "never" while repeats are sorted, where infinities cannot be interpolated.
_NEVER = 1e30


def reached(
    seconds: Float[Tensor, " points"], losses: Float[Tensor, "repeats points"], level: float
) -> Float[Tensor, " repeats"]:
    """Seconds after which the lowest loss so far is at `level`; infinite where it never is.

    Args:
        seconds: of the points, rising.
        losses: of each.
    """
    lowest = losses.cummin(1).values
    under = lowest <= level
    first = under.int().argmax(1)
    after = lowest.gather(1, first[:, None]).squeeze(1)
    earlier = (first - 1).clamp(min=0)
    before = lowest.gather(1, earlier[:, None]).squeeze(1)
    share = torch.where(first > 0, (before - level) / (before - after).clamp(min=1e-300), 1.0)
    found = seconds[earlier] + share * (seconds[first] - seconds[earlier])
    # The first point of a curve has no earlier one to come from.
    found = torch.where(first > 0, found, seconds[0])
    return torch.where(under.any(1), found, torch.inf)


def time_to_reach(curve: Curve, level: float) -> float:
    """Seconds a curve takes to a loss; infinite where it never gets there."""
    seconds, losses = _sorted(curve)
    return float(reached(seconds, losses[None], level))


def frontier_estimates(
    curves: Mapping[str, Curve],
    levels: Sequence[float],
    place: Key,
    *,
    ours: str,
    against: str,
    seed: int = 0,
) -> list[Estimate]:
    """For each loss, the seconds every curve takes to it, and how many times sooner `ours` is.

    Curves that never get to a loss give no estimate for it; a speed-up needs both. The key says the
    loss, and the curve as its adapter; of a speed-up also what ours is compared with.

    Args:
        curves: all scored on the same held-out documents.
        levels: losses in nats/token.
        ours, against: the curves the speed-up compares: seconds of `against` over those of `ours`.
    """
    resampled = _Resampled(curves, generator(seed, "frontier", place))
    found = []
    for level in levels:
        times = {name: time_to_reach(curve, level) for name, curve in curves.items()}
        there = {name: value for name, value in times.items() if math.isfinite(value)}
        for name, value in there.items():
            others = tuple(
                Null(other, at, at, at, False, resampled.difference(name, other, level))
                for other, at in there.items()
                if other != name
            )
            here = replace(place, adapter=name, loss=level)
            interval = resampled.time(name, level)
            found.append(
                Estimate(
                    *("adapt.time_to_loss", value, interval, resampled.documents),
                    *("seconds", others, here),
                )
            )
        if ours in there and against in there:
            here = replace(place, adapter=ours, compared=against, loss=level)
            found.append(
                Estimate(
                    "adapt.speed_up",
                    times[against] / times[ours],
                    resampled.ratio(against, ours, level),
                    resampled.documents,
                    "ratio",
                    (Null.exact(EQUALLY_FAST, 1.0, rival=True),),
                    here,
                )
            )
    return found


class _Resampled:
    """Seconds of every curve to a loss under resamples of the documents they share."""

    def __init__(self, curves: Mapping[str, Curve], random: torch.Generator) -> None:
        first = next(iter(curves.values()))[0]
        self.documents = len(first.scored)
        picks = torch.randint(self.documents, (_REPEATS, self.documents), generator=random)
        counts = torch.zeros(_REPEATS, self.documents, dtype=torch.float64)
        counts.scatter_add_(1, picks, torch.ones_like(counts))
        weighed = weights(first.scored)
        counts = counts * weighed
        scored = counts @ first.scored.double()
        self._seconds = {name: _sorted(curve)[0] for name, curve in curves.items()}
        self._losses = {
            name: counts
            @ torch.stack([p.loss.double() for p in _rising(curve)], 1)
            / scored[:, None]
            for name, curve in curves.items()
        }

    def time(self, name: str, level: float) -> Interval:
        """Of a curve's seconds."""
        return self._percentiles(self._times(name, level))

    def difference(self, name: str, other: str, level: float) -> Interval:
        """Of a curve's seconds less another's."""
        one, two = self._times(name, level), self._times(other, level)
        return self._percentiles(one - two, neither=one + two)

    def ratio(self, name: str, other: str, level: float) -> Interval:
        """Of a curve's seconds over another's."""
        one, two = self._times(name, level), self._times(other, level)
        return self._percentiles(one / two, neither=one + two)

    def _times(self, name: str, level: float) -> Float[Tensor, " repeats"]:
        return reached(self._seconds[name], self._losses[name], level).clamp(max=_NEVER)

    def _percentiles(
        self, values: Float[Tensor, " repeats"], neither: Tensor | None = None
    ) -> Interval:
        """Repeats in which neither curve gets there say nothing and are passed over."""
        if self.documents < MIN_DOCUMENTS:
            return UNKNOWN
        if neither is not None:
            values = values.masked_fill(neither >= 2 * _NEVER, torch.nan)
        ends = torch.nanquantile(values, torch.tensor(_ENDS, dtype=torch.float64))
        return _with_never(ends.tolist())


def _with_never(ends: Sequence[float]) -> Interval:
    far = _NEVER / 1e10
    low, high = (math.copysign(math.inf, end) if abs(end) > far else end for end in ends)
    return low, high


def _sorted(curve: Curve) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    points = _rising(curve)
    seconds = torch.tensor([point.seconds for point in points], dtype=torch.float64)
    return seconds, torch.tensor([point.mean_loss for point in points], dtype=torch.float64)


def _rising(curve: Curve) -> list[Point]:
    return sorted(curve, key=lambda point: point.seconds)
