"""Estimates as printed, a row each, and the order in which they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from lorascope.measures.definitions import DEFINITIONS, definition_of
from lorascope.report.formatting import (
    SYMBOLS,
    detail,
    difference_words,
    interval,
    number,
    sign,
    verdict_words,
)
from lorascope.results import Estimate, Null
from lorascope.results.labels import (
    Of,
    adapters_of,
)


@dataclass(frozen=True)
class TableRow:
    """One estimate, as printed; `nulls` lists the nulls after the headline one."""

    title: str
    adapter: str
    rank: str
    site: str
    seed: str
    dictionary: str
    setting: str
    value: str
    interval: str
    chance: str
    chance_interval: str
    null: str
    difference: str
    nulls: str
    symbol: str
    verdict: str
    n: str
    unit: str


def table_row(estimate: Estimate) -> TableRow:
    """An estimate as printed."""
    place = estimate.key
    headline = estimate.headline
    return TableRow(
        title=definition_of(estimate.measure).title,
        adapter=adapters_of(place),
        rank="" if place.rank is None else str(place.rank),
        site=place.site,
        seed="" if place.seed is None else str(place.seed),
        dictionary=str(Of.key(place)),
        setting=detail(place),
        value=number(estimate.value),
        interval=interval(*estimate.interval),
        chance=number(estimate.chance),
        chance_interval=_chance_interval(headline) if headline else "",
        null=headline.name if headline else "",
        difference=difference_words(estimate),
        nulls="; ".join(
            _other_null(estimate, null) for null in estimate.nulls if null is not headline
        ),
        symbol=sign(estimate),
        verdict=verdict_words(estimate),
        n=f"{estimate.n:,}",
        unit=estimate.unit,
    )


def _chance_interval(chance: Null) -> str:
    return "" if chance.low == chance.high else interval(chance.low, chance.high)


def _other_null(estimate: Estimate, chance: Null) -> str:
    return f"{chance.name} {number(chance.level)} {SYMBOLS[estimate.against(chance)]}"


_MEASURES: Final = tuple(DEFINITIONS)


def measure_order(measures: Iterable[str]) -> list[str]:
    """Measures without repeats, in the order of their definitions, unknown ones last."""
    return ordered(measures, _MEASURES)


T = TypeVar("T")


def ordered(names: Iterable[T], known: tuple[T, ...]) -> list[T]:
    """Names without repeats: those that are known in their order, then the others."""
    unique = dict.fromkeys(names)
    return [n for n in known if n in unique] + [n for n in unique if n not in known]
