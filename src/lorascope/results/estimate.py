"""A number beside its chance levels and its intervals.

A verdict comes from the interval of a *difference*, value − level of a null:

- paired, where value and null come from the same documents, rows or prompts: the measure gives
  the interval of the difference, from the same resamples;
- drawn, where the null is the same number computed again from draws that differ from the value's
  own origin in what the null says alone (null adapters, dictionaries trained on featureless rows):
  the prediction interval of one more draw;
- otherwise from both intervals as from independent sources (MOVER, Zou & Donner 2008, Statistics
  in Medicine 27:1693).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import Any, Literal

from scipy import special

from lorascope.errors import require_kind
from lorascope.results.key import Key
from lorascope.results.shown import (
    around,
    chance_text,
    estimate_line,
    estimates_html,
    null_line,
)

Verdict = Literal["above", "below", "equal", "not settled", "no verdict"]
Interval = tuple[float, float]

# Most units that "would settle it" may ask for: a billion.
_MOST = 10**9


@dataclass(frozen=True)
class Null:
    """What a number comes to where there is nothing to find, under one null.

    Attributes:
        name: the null's name, "covariance-matched" for instance.
        level: mean of the number under the null.
        low, high: where 95 % of the number's values fall under the null; equal to `level` for a
            null without randomness (the zero predictor).
        rival: whether the null stands for a rival explanation of the number, so that a verdict
            must leave it. The others are references.
        difference: 95 % interval of value − level, where value and null share resamples or draws;
            from both intervals (MOVER) if None.
        p: two-sided p-value of value = level; from the interval of the difference if None.
        draws: how many draws the level was made from; 0 where it is no mean of draws.

    Examples:
        >>> ls.Null("isotropic", 0.066, 0.065, 0.067)
        Null(isotropic 0.066 [0.065, 0.067], reference)
    """

    name: str
    level: float
    low: float
    high: float
    rival: bool = False
    difference: Interval | None = None
    p: float | None = None
    draws: int = 0

    def __post_init__(self) -> None:
        for name in ("level", "low", "high"):
            require_kind(getattr(self, name), Real, f"{name} of the null {self.name}", "a number")

    def __repr__(self) -> str:
        return null_line(self)

    @classmethod
    def exact(cls, name: str, level: float, rival: bool = False) -> Null:
        """A null without randomness."""
        return cls(name, level, level, level, rival)

    @classmethod
    def drawn(
        cls, name: str, values: Sequence[float], low: float = -math.inf, high: float = math.inf
    ) -> Null:
        """A reference of repeated draws: their mean, and where the next one falls.

        Args:
            values: of the draws; of a single one nothing is known but its value.
            low, high: what the number cannot leave.
        """
        # Imported here: what only reads results should not wait for torch.
        from lorascope.stats.intervals import prediction_interval, within

        level = sum(values) / len(values)
        bounds = prediction_interval(values) if len(values) > 1 else (level, level)
        return cls(name, level, *within(bounds, low, high))


@dataclass(frozen=True)
class Estimate:
    """One measured number.

    Attributes:
        measure: key into `measures.definitions`.
        value: the number.
        interval: 95 % interval of `value`, (nan, nan) where too little was measured to say.
        n: how many units (tokens, latents, angles) the value averages over.
        unit: unit of value, interval and chance.
        nulls: chance levels and references; rivals first.
        key: adapter, rank, site, seed, dictionary and what else it belongs to.
        margin: differences up to this size count as none, in `unit`; None where none is stated.
        judged: False where what it was measured with fails its own yardsticks, or where the same
            number without massive coordinates is judged: value, interval and nulls stand, and
            there is no verdict and no p-value.

    Examples:
        >>> rival = ls.Null("null adapters", 0.30, 0.25, 0.35, rival=True)
        >>> found = ls.Estimate("recovery.kl", 0.84, (0.80, 0.88), 512, "share", (rival,))
        >>> found.verdict, found.chance
        ('above', 0.3)
    """

    measure: str
    value: float
    interval: Interval
    n: int
    unit: str
    nulls: tuple[Null, ...] = ()
    key: Key = field(default_factory=Key)
    margin: float | None = None
    judged: bool = True

    def __post_init__(self) -> None:
        of = f"of an estimate of {self.measure}"
        require_kind(self.value, Real, f"the value {of}", "a number")
        require_kind(self.interval, tuple, f"the interval {of}", "(low, high)")
        require_kind(self.nulls, tuple, f"the nulls {of}", "a tuple of Null")
        require_kind(self.key, Key, f"the key {of}", 'Key(adapter="r4", site="layers.5")')

    def __repr__(self) -> str:
        return estimate_line(self)

    def _repr_html_(self) -> str:
        """The number as notebooks show it."""
        return estimates_html([self])

    @property
    def headline(self) -> Null | None:
        """The rival that is hardest to leave, or the first reference where there is no rival."""
        rivals = self.rivals
        if not rivals:
            return self.nulls[0] if self.nulls else None
        return min(rivals, key=lambda null: _clearance(*self.difference(null)))

    @property
    def rivals(self) -> tuple[Null, ...]:
        """The nulls that stand for a rival explanation."""
        return tuple(null for null in self.nulls if null.rival)

    @property
    def apart_from_reference(self) -> bool:
        """Above or below, but beside references alone: nothing is claimed by it."""
        return self.verdict in ("above", "below") and not self.rivals

    @property
    def chance(self) -> float:
        """Level of the headline null; nan without one."""
        return math.nan if (null := self.headline) is None else null.level

    @property
    def verdict(self) -> Verdict:
        """Where the number lies beside its rivals, or beside its first reference without one.

        Above or below only if it is so beside *every* rival (an intersection-union test: no
        correction for several rivals is needed). No verdict for a value that is not finite, has
        no interval or is not `judged`.
        """
        nulls = self.rivals or self.nulls[:1]
        found = {self.against(null) for null in nulls}
        if len(found) == 1:
            return found.pop()
        if not found or "no verdict" in found:
            return "no verdict"
        return "equal" if "equal" in found else "not settled"

    def difference(self, null: Null) -> Interval:
        """95 % interval of value − level under one null; (nan, nan) without an interval."""
        low, high = self.interval
        if null.difference is not None:
            return null.difference
        if not math.isfinite(self.value) or math.isnan(low) or math.isnan(high):
            return math.nan, math.nan
        gap = self.value - null.level
        return (
            gap - math.hypot(self.value - low, null.high - null.level),
            gap + math.hypot(high - self.value, null.level - null.low),
        )

    def against(self, null: Null) -> Verdict:
        """The verdict against one null, from the interval of the difference."""
        low, high = self.difference(null)
        if not self._comparable(low, high):
            return "no verdict"
        if self.margin is not None and -self.margin <= low and high <= self.margin:
            return "equal"
        if low > 0:
            return "above"
        return "below" if high < 0 else "not settled"

    def p(self, null: Null) -> float:
        """Two-sided p-value of value = level; from the difference's interval where none is given.

        nan where there is no verdict. The interval is read as a normal one on the side of zero.
        """
        low, high = self.difference(null)
        if not self._comparable(low, high):
            return math.nan
        if null.p is not None:
            return null.p
        gap = self.value - null.level
        half = gap - low if gap > 0 else high - gap
        if half <= 0:
            return 1.0 if gap == 0 else 0.0
        return float(2 * special.ndtr(-abs(gap) / half * special.ndtri(0.975)))

    @property
    def p_value(self) -> float:
        """The largest p-value over the rivals; nan without a rival or an interval."""
        found = [self.p(null) for null in self.rivals]
        return math.nan if not found or any(map(math.isnan, found)) else max(found)

    @property
    def between(self) -> tuple[list[str], list[str]] | None:
        """(rivals that it is above, rivals that it is below), where all are left to two sides."""
        sides = {null.name: self.against(null) for null in self.rivals}
        above = [name for name, verdict in sides.items() if verdict == "above"]
        below = [name for name, verdict in sides.items() if verdict == "below"]
        whole = self.judged and above and below and len(above) + len(below) == len(sides)
        return (above, below) if whole else None

    @property
    def apart(self) -> bool:
        """Whether every rival is left, all to the same side."""
        return self.verdict in ("above", "below")

    @property
    def n_to_settle(self) -> int | None:
        """For a number that is not settled, about how many units would tell, to one digit.

        Intervals of a sampled value shrink with 1/√n: the n at which the difference would leave
        zero if it stayed where it is. None where the verdict is another, where draws and not the
        sample decide, where an interval has no end, or beyond a billion.
        """
        null = self.headline
        if null is None or self.verdict != "not settled" or null.draws:
            return None
        # Every rival is left, not all to one side: more units would not change that.
        if self.against(null) != "not settled":
            return None
        gap, (low, high) = self.value - null.level, self.difference(null)
        half = gap - low if gap > 0 else high - gap
        if gap == 0 or not math.isfinite(half / gap):
            return None
        wanted = self.n * (half / gap) ** 2
        digits = 10 ** math.floor(math.log10(max(wanted, 1)))
        # What is whole but for the last bit is not rounded up.
        rounded = math.ceil(wanted / digits - 1e-9) * digits
        return rounded if rounded <= _MOST else None

    def _comparable(self, low: float, high: float) -> bool:
        """Whether a verdict may be drawn: value, interval and difference are known."""
        known = not any(map(math.isnan, (low, high, *self.interval)))
        return self.judged and known and math.isfinite(self.value)

    def at(self, key: Key) -> Estimate:
        """The same number, said of `key`."""
        return replace(self, key=key)

    def beside(self, nulls: Sequence[Null]) -> Estimate:
        """The same number with further chance levels, rivals first."""
        every = [*self.nulls, *nulls]
        return replace(self, nulls=tuple(sorted(every, key=lambda null: not null.rival)))

    def plain(self) -> dict[str, Any]:
        """The number as plain data."""
        return asdict(self)

    @classmethod
    def revived(cls, data: Mapping[str, Any]) -> Estimate:
        """The number that `plain` gave away."""
        whole = {
            **data,
            "interval": tuple(data["interval"]),
            "nulls": tuple(_null(null) for null in data["nulls"]),
            "key": Key(**data["key"]),
        }
        return cls(**whole)

    def __str__(self) -> str:
        number = f"{self.measure} {self.value:.4g} {around(*self.interval)}".rstrip()
        return ", ".join(part for part in (number, chance_text(self)) if part)


def _null(data: Mapping[str, Any]) -> Null:
    difference = data.get("difference")
    return Null(**{**data, "difference": None if difference is None else tuple(difference)})


def _clearance(low: float, high: float) -> float:
    """How far an interval stays clear of zero, in its own half-widths; negative if it holds it."""
    if math.isnan(low) or math.isnan(high):
        return -math.inf
    half = (high - low) / 2
    nearest = max(low, -high)
    return nearest / half if half > 0 else math.copysign(math.inf, nearest)
