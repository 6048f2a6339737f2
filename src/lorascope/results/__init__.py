"""Results: a number with its chance levels, what it belongs to, and a run's table of numbers."""

from __future__ import annotations

from lorascope.results.estimate import Estimate, Interval, Null, Verdict
from lorascope.results.key import KEY_FIELDS, Key
from lorascope.results.null_names import ADAPTER, GAUSSIAN
from lorascope.results.table import Estimates

__all__ = [
    "ADAPTER",
    "GAUSSIAN",
    "KEY_FIELDS",
    "Estimate",
    "Estimates",
    "Interval",
    "Key",
    "Null",
    "Verdict",
]
