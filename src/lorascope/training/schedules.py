"""Learning-rate schedules: functions from (step, total steps) to a multiplier of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]


def constant(step: int, total: int) -> float:
    """The peak rate at every step."""
    del step, total
    return 1.0


def warmup_cosine(warmup: float = 0.02, floor: float = 0.0) -> Schedule:
    """Linear rise over the first `warmup` share of the steps, then half a cosine to `floor`."""

    def multiplier(step: int, total: int) -> float:
        rise = max(1, round(warmup * total))
        if step < rise:
            return (step + 1) / rise
        done = (step - rise) / max(1, total - rise)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    return multiplier


def warmup_hold_decay(warmup: float = 0.05, decay: float = 0.2) -> Schedule:
    """Linear rise over the first `warmup` share, hold, linear fall over the last `decay` share.

    The usual choice for sparse autoencoders: the fall settles the latents that are still moving.
    """

    def multiplier(step: int, total: int) -> float:
        rise, fall = max(1, round(warmup * total)), max(1, round(decay * total))
        return min(1.0, (step + 1) / rise, (total - step) / fall)

    return multiplier
