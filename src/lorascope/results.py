"""A number beside its chance level and its interval: the result type of every measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Verdict = Literal["above chance", "below chance", "at chance", "underpowered", "no chance level"]


@dataclass(frozen=True)
class Null:
    """What a number comes to where there is nothing to find, under one null.

    Attributes:
        name: the null's name, "covariance-matched" for instance.
        level: mean of the number under the null.
        low, high: where 95 % of the number's values fall under the null; equal to `level` for a
            null without randomness (the zero predictor).
    """

    name: str
    level: float
    low: float
    high: float

    @classmethod
    def exact(cls, name: str, level: float) -> Null:
        """A null without randomness."""
        return cls(name, level, level, level)


@dataclass(frozen=True)
class Key:
    """Which adapter, site, seed and dictionary a number belongs to; empty where it has none."""

    adapter: str = ""
    rank: int | None = None
    site: str = ""
    seed: int | None = None
    dictionary: str = ""
    setting: str = ""

    def __str__(self) -> str:
        # Random draws are seeded by this text.
        return repr(self).replace("Key(", "Place(", 1)


@dataclass(frozen=True)
class Estimate:
    """One measured number.

    Attributes:
        measure: key into `measures.definitions`.
        value: the number.
        interval: 95 % interval of `value`, (nan, nan) where one draw decides the number.
        n: how many units (tokens, latents, angles) the value averages over.
        unit: unit of value, interval and chance.
        nulls: the nulls; the first is the headline null, the strictest that applies.
        key: adapter, rank, site, seed, dictionary, setting.
    """

    measure: str
    value: float
    interval: tuple[float, float]
    n: int
    unit: str
    nulls: tuple[Null, ...] = ()
    key: Key = field(default_factory=Key)

    @property
    def chance(self) -> float:
        """Level of the headline null; nan without one."""
        return self.nulls[0].level if self.nulls else math.nan

    @property
    def verdict(self) -> Verdict:
        """The value's interval against the headline null's interval."""
        return self.against(self.nulls[0]) if self.nulls else "no chance level"

    def against(self, chance: Null) -> Verdict:
        """The verdict against one null.

        Apart only where the two 95 % intervals do not touch. Where they do, "at chance" if the
        value lies among the null's own values, else "underpowered": it may be apart, and more
        tokens or latents would tell.
        """
        low, high = self._bounds
        if low > chance.high:
            return "above chance"
        if high < chance.low:
            return "below chance"
        return "at chance" if chance.low <= self.value <= chance.high else "underpowered"

    @property
    def apart(self) -> bool:
        """Whether the headline null is left, to either side."""
        return self.verdict in ("above chance", "below chance")

    @property
    def n_to_settle(self) -> int | None:
        """For an underpowered number, about how many units would tell it from chance.

        Intervals shrink with 1/√n: the n at which this one would just clear the headline null, if
        the value stayed where it is. None where the verdict is another or an interval has no end.
        """
        if self.verdict != "underpowered":
            return None
        chance, (low, high) = self.nulls[0], self._bounds
        above = self.value > chance.high
        half = self.value - low if above else high - self.value
        gap = self.value - chance.high if above else chance.low - self.value
        return round(self.n * (half / gap) ** 2) if math.isfinite(half / gap) else None

    @property
    def _bounds(self) -> tuple[float, float]:
        low, high = (self.value if math.isnan(bound) else bound for bound in self.interval)
        return low, high

    def at(self, key: Key) -> Estimate:
        """The same number, said of `place`."""
        return replace(self, key=key)

    def plain(self) -> dict[str, Any]:
        """The number as plain data."""
        return asdict(self)

    @classmethod
    def revived(cls, data: Mapping[str, Any]) -> Estimate:
        """The number that `plain` gave away."""
        whole = {
            **data,
            "interval": tuple(data["interval"]),
            "nulls": tuple(Null(**null) for null in data["nulls"]),
            "key": Key(**data["key"]),
        }
        return cls(**whole)

    def __str__(self) -> str:
        text = f"{self.measure} {self.value:.4g} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        if self.nulls:
            text += f", chance {self.chance:.4g} ({self.nulls[0].name}): {self.verdict}"
        return text
