"""What a run found among its primary numbers, and what its null adapters "find" by the same rule.

The primary numbers of one adapter, at all its sites, are one family: Benjamini & Hochberg's step-up
procedure (1995, JRSS B 57:289) over their p-values keeps the expected share of false findings at
the stated rate. A null adapter goes through the same function with its own primary numbers, each
beside the other null adapters: how often it "finds" something is seen and not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scipy.stats import false_discovery_control

from lorascope.measures.definitions import definition_of
from lorascope.results import ADAPTER, Estimate, Estimates, Key
from lorascope.results.labels import Of

RATE: Final = 0.05


@dataclass(frozen=True)
class Family:
    """Primary numbers of one adapter, or of one null adapter.

    Attributes:
        adapter: whose; of a null adapter, the one it is a draw for.
        draw: number of the null adapter; None for an adapter that was given.
        tested: those with a p-value beside every rival.
        found: those of them that are significant at the rate, on the side that means something.
        opposite: those significant on the other side; never counted with the others.
        untested: those without a rival, an interval, or a dictionary that may be judged.
    """

    adapter: str
    draw: int | None
    tested: tuple[Estimate, ...]
    found: tuple[Estimate, ...]
    opposite: tuple[Estimate, ...]
    untested: tuple[Estimate, ...]


def primary_numbers(estimates: Iterable[Estimate]) -> Estimates:
    """The numbers that answer their questions: one a measure, adapter (or draw) and site.

    Of several seeds the lowest, as null adapters have one; of several settings (k) the first.
    """
    chosen: dict[tuple[str, str, str, int | None], Estimate] = {}
    for estimate in sorted(estimates, key=lambda e: e.key.seed or 0):
        if _is_primary(estimate):
            key = estimate.key
            chosen.setdefault((estimate.measure, key.adapter, key.site, key.draw), estimate)
    return Estimates(chosen.values())


def adapter_families(estimates: Iterable[Estimate]) -> list[Family]:
    """One family an adapter that was given, in the order in which they occur."""
    return [f for f in _families(estimates) if f.draw is None]


def null_families(estimates: Iterable[Estimate]) -> list[Family]:
    """One family a null adapter; only those with a number beside the other null adapters."""
    return [f for f in _families(estimates) if f.draw is not None and f.tested]


def _families(estimates: Iterable[Estimate]) -> list[Family]:
    # In the order of the table; `primary_numbers` puts seeds first.
    every = list(estimates)
    order = {id(estimate): i for i, estimate in enumerate(every)}
    primary = sorted(primary_numbers(every), key=lambda e: order[id(e)])
    by_adapter: dict[tuple[str, int | None], list[Estimate]] = {}
    for estimate in primary:
        by_adapter.setdefault((estimate.key.adapter, estimate.key.draw), []).append(estimate)
    return [_family(*whose, numbers) for whose, numbers in by_adapter.items()]


def _is_primary(estimate: Estimate) -> bool:
    key, primary = estimate.key, definition_of(estimate.measure).primary
    plain = Key()
    return (
        primary is not None
        and Of.key(key) == primary
        and bool(key.adapter)
        and key.null in (plain.null, ADAPTER)
        and (key.setting, key.massive, key.module) == (plain.setting, plain.massive, plain.module)
    )


def _family(adapter: str, draw: int | None, numbers: list[Estimate]) -> Family:
    tested = tuple(e for e in numbers if not math.isnan(e.p_value))
    significant = []
    if tested:
        adjusted = false_discovery_control([e.p_value for e in tested], method="bh")
        # The verdict is the table's: what is equal within its margin is no finding, however sure.
        significant = [e for e, p in zip(tested, adjusted, strict=True) if p <= RATE and e.apart]
    sides = {id(e): e.verdict == definition_of(e.measure).apart for e in significant}
    return Family(
        adapter,
        draw,
        tested,
        tuple(e for e in significant if sides[id(e)]),
        tuple(e for e in significant if not sides[id(e)]),
        tuple(e for e in numbers if math.isnan(e.p_value)),
    )
