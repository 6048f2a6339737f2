"""Loss against the time it took: who reaches a loss first, and by how much (section 4.2).

A curve is a number of trained things with the seconds each took and its held-out losses by
document. The loss reached by some time is the lowest so far; between two points of it time is
interpolated linearly. Intervals draw the same documents for all points of all curves.
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
from lorascope.stats.bootstrap import bootstrap
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval


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

    Curves that never get to a loss give no estimate for it; a speed-up needs both. The loss stands
    in the place's setting, "2.600", with the curve's name before it for a time: "e2e 2.600".

    Args:
        curves: all scored on the same held-out documents.
        levels: losses in nats/token.
        ours, against: the curves the speed-up compares: seconds of `against` over those of `ours`.
    """
    found = []
    for level in levels:
        times = {name: time_to_reach(curve, level) for name, curve in curves.items()}
        setting = f"{level:.3f}"
        for name, value in times.items():
            if math.isfinite(value):
                others = tuple(
                    Null.exact(other, at)
                    for other, at in times.items()
                    if other != name and math.isfinite(at)
                )
                here = _at(place, f"{name} {setting}")
                found.append(_time(curves[name], level, value, others, here, seed))
        if math.isfinite(times[ours]) and math.isfinite(times[against]):
            pair = (curves[ours], curves[against])
            found.append(_speed_up(pair, level, times[against] / times[ours], place, setting, seed))
    return found


def _time(
    curve: Curve, level: float, value: float, others: tuple[Null, ...], place: Key, seed: int
) -> Estimate:
    seconds, _ = _sorted(curve)
    columns = _columns([curve])
    random = generator(seed, "frontier", place)

    def statistic(sums: Float[Tensor, "repeats m"]) -> Float[Tensor, " repeats"]:
        return reached(seconds, sums[:, 1:] / sums[:, :1], level).clamp(max=_NEVER)

    interval = _with_never(bootstrap(statistic, columns, columns[:, 0], random))
    return Estimate("adapt.time_to_loss", value, interval, len(columns), "seconds", others, place)


def _speed_up(
    pair: tuple[Curve, Curve], level: float, value: float, place: Key, setting: str, seed: int
) -> Estimate:
    here = _at(place, setting)
    columns = _columns(pair)
    split = 1 + len(pair[0])

    def statistic(sums: Float[Tensor, "repeats m"]) -> Float[Tensor, " repeats"]:
        times = []
        for curve, part in zip(pair, (sums[:, 1:split], sums[:, split:]), strict=True):
            found = reached(_sorted(curve)[0], part / sums[:, :1], level)
            times.append(found.clamp(max=_NEVER))
        # Neither there says nothing: such repeats are passed over.
        neither = (times[0] == _NEVER) & (times[1] == _NEVER)
        return (times[1] / times[0]).masked_fill(neither, torch.nan)

    random = generator(seed, "frontier", here)
    interval = _with_never(bootstrap(statistic, columns, columns[:, 0], random))
    chance = Null.exact("equally fast", 1.0)
    return Estimate("adapt.speed_up", value, interval, len(columns), "ratio", (chance,), here)


def _with_never(interval: Interval) -> Interval:
    low, high = (math.inf if bound > _NEVER / 1e10 else bound for bound in interval)
    return low, high


def _columns(curves: Sequence[Curve]) -> Float[Tensor, "documents m"]:
    """Scored tokens, then the losses of all points of all curves, each curve by rising time."""
    points = [point for curve in curves for point in _rising(curve)]
    return torch.stack([points[0].scored, *(point.loss for point in points)], 1).double()


def _sorted(curve: Curve) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    points = _rising(curve)
    seconds = torch.tensor([point.seconds for point in points], dtype=torch.float64)
    return seconds, torch.tensor([point.mean_loss for point in points], dtype=torch.float64)


def _rising(curve: Curve) -> list[Point]:
    return sorted(curve, key=lambda point: point.seconds)


def _at(place: Key, setting: str) -> Key:
    return replace(place, setting=f"{place.setting} {setting}".strip())
