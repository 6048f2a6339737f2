"""How often an audit finds something about null adapters, and about featureless dictionaries.

1. A null adapter's primary numbers stand beside the remaining null adapters of its adapter
   (`measures.null_draws`): as if it were the adapter given and the others its nulls.
2. A dictionary trained on Gaussian rows, as if it were the adapter's, stands beside the remaining
   ones, and beside null adapters and the remaining ones together, as an adapter's numbers do.

A verdict above or below is a false finding; 5 % are meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lorascope.measures.findings import primary_numbers
from lorascope.measures.null_draws import beside_draws
from lorascope.planted.shares import Share
from lorascope.results import ADAPTER, GAUSSIAN, Estimate
from lorascope.results.labels import BASE, DELTA_VS_BASE, Of

NOMINAL, CEILING = 0.05, 0.08
# Which numbers of a dictionary's directions, and what they are of.
FEATURELESS = {
    "max_cosine.mean": DELTA_VS_BASE,
    "angle.mean": DELTA_VS_BASE,
    "pursuit.fvu": Of(BASE),
}


def null_adapter_shares(estimates: Iterable[Estimate], ceiling: float | None = None) -> list[Share]:
    """Share of null adapters' primary numbers with a verdict, all together and by measure.

    Args:
        estimates: an audit's, every draw beside the others.
        ceiling: what the interval of the whole share may reach.
    """
    judged = [
        e
        for e in primary_numbers(estimates)
        if e.key.null == ADAPTER and e.key.draw is not None and e.verdict != "no verdict"
    ]
    part = ADAPTER
    shares = [_share(part, "all primary numbers", judged, NOMINAL, ceiling)]
    return shares + [
        _share(part, measure, [e for e in judged if e.measure == measure], NOMINAL)
        for measure in dict.fromkeys(e.measure for e in judged)
    ]


def featureless_shares(estimates: Iterable[Estimate]) -> list[Share]:
    """Share of Gaussian-trained dictionaries' numbers apart, beside the rest and beside both."""
    every = list(estimates)
    shares = []
    for measure, of in FEATURELESS.items():
        drawn = [
            replace(e, nulls=())
            for e in every
            if e.measure == measure
            and _is_of(e, of)
            and e.key.draw is not None
            and e.key.null in (ADAPTER, GAUSSIAN)
            and not e.key.massive
        ]
        if not any(e.key.null == GAUSSIAN for e in drawn):
            continue
        part = "featureless dictionaries"
        alone = [e for e in beside_draws(drawn) if e.key.null == GAUSSIAN and e.nulls]
        shares.append(_share(part, f"{measure}, beside the rest", alone, NOMINAL))
        both = list(_as_given(drawn))
        shares.append(_share(part, f"{measure}, beside null adapters and the rest", both, NOMINAL))
    return shares


def _is_of(estimate: Estimate, of: Of) -> bool:
    found = Of.key(estimate.key)
    return found == of or (estimate.key.null == GAUSSIAN and found.compared == of.compared)


def _as_given(drawn: Sequence[Estimate]) -> Iterator[Estimate]:
    """Every Gaussian-trained dictionary's number as an adapter's own, beside both rivals."""
    numbers = sorted(
        {e.key.draw for e in drawn if e.key.null == GAUSSIAN and e.key.draw is not None}
    )
    for number in numbers:
        ours = [e for e in drawn if e.key.null == GAUSSIAN and e.key.draw == number]
        rest = [e for e in drawn if e.key.null != GAUSSIAN or e.key.draw != number]
        given = [replace(e, key=replace(e.key, null="", draw=None)) for e in ours]
        judged = beside_draws([*given, *rest])
        yield from (e for e in judged if e.key.draw is None and e.rivals)


def _share(
    part: str,
    what: str,
    estimates: Sequence[Estimate],
    bar: float,
    ceiling: float | None = None,
) -> Share:
    found = sum(estimate.apart for estimate in estimates)
    return Share(part, what, found, len(estimates), bar, ceiling=ceiling)
