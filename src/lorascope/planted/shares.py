"""Counts compared with the limits they must keep, by binomial tests at one level."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from lorascope.stats.intervals import Interval

# One-sided: a rate that lies at its bar exactly fails with this probability.
LEVEL = 0.025


@dataclass(frozen=True)
class Share:
    """How often something happened, beside how often it may or must.

    Attributes:
        part: what was tried.
        what: what is counted, in words.
        found, trials: how often it happened, of how many.
        bar: the share it may reach (`most`) or must reach; None where none is asked.
        most: whether the bar is the largest share allowed, and not the least.
        ceiling: what the upper end of the share's interval may reach; the share itself must then
            keep its bar as well, and not only be compatible with it.
    """

    part: str
    what: str
    found: int
    trials: int
    bar: float | None
    most: bool = True
    ceiling: float | None = None

    @property
    def share(self) -> float:
        """Found of trials; nan where nothing was tried."""
        return self.found / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> Interval:
        """95 % interval of the share (Clopper & Pearson 1934), over trials."""
        if not self.trials:
            return 0.0, 1.0
        bounds = stats.binomtest(self.found, self.trials).proportion_ci(0.95, "exact")
        return float(bounds.low), float(bounds.high)

    @property
    def p(self) -> float:
        """How likely so bad a share is where the true one lies at the bar; 1 without a bar."""
        if self.bar is None:
            return 1.0
        side = "greater" if self.most else "less"
        return float(stats.binomtest(self.found, self.trials, self.bar, side).pvalue)

    @property
    def passed(self) -> bool:
        """Whether the bar is kept, at the stated level; never where nothing was tried."""
        if not self.trials:
            return False
        if self.ceiling is not None and self.bar is not None:
            return self.share <= self.bar and self.interval[1] <= self.ceiling
        return self.p >= LEVEL

    def __str__(self) -> str:
        low, high = self.interval
        side = "at most" if self.most else "at least"
        asked = "" if self.bar is None else f"; {side} {self.bar:.0%} is asked"
        if self.ceiling is not None:
            asked += f", with an interval up to {self.ceiling:.0%}"
        counts = f"{self.found} of {self.trials} [{low:.1%}, {high:.1%}]"
        return f"{self.part}: {self.what}: {counts}{asked}"
