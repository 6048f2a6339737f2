"""Chance levels from draws that went through the whole pipeline: null adapters, and dictionaries
trained on Gaussian rows.

An adapter's number and those of its null adapters are the same function of the same texts, rows
and base dictionary; the adapter's own training is all that tells them apart. If that did nothing
in the number's eyes, it is one more draw: it falls into the prediction interval of the next draw
in 95 % of cases, whatever the texts. So no further interval is added for the texts. The spread
of the draws is shared among the conditions of one number (`stats.moderated`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lorascope.measures.definitions import definition_of
from lorascope.results import ADAPTER, GAUSSIAN, Estimate, Key, Null
from lorascope.stats.moderated import Prediction, moderated_prediction

# A number, a kind of draw, and a condition; a number and a kind share their spread.
_Draws = dict[tuple[str, str, str], dict[Key, dict[int, float]]]


def beside_draws(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Every number with the draws of its nulls as rivals; draws themselves beside the others.

    A draw of null adapters is judged by the remaining draws of its adapter, so that what is found
    about adapters that learned nothing can be counted in the same run.
    """
    every = list(estimates)
    draws = _draws(every)
    levels = {kind: _predictions(by_condition) for kind, by_condition in draws.items()}
    found = []
    for estimate in every:
        if estimate.key.draw is not None:
            found.append(_beside_the_others(estimate, draws))
            continue
        nulls = []
        for null in (ADAPTER, GAUSSIAN):
            prediction = levels.get(_kind(estimate, null), {}).get(_condition(estimate.key))
            if prediction is not None:
                number = len(draws[_kind(estimate, null)][_condition(estimate.key)])
                nulls.append(_null(estimate, null, prediction, number))
        found.append(estimate.beside(nulls))
    return found


def _draws(estimates: Sequence[Estimate]) -> _Draws:
    found: _Draws = {}
    for estimate in estimates:
        if estimate.key.draw is not None and math.isfinite(estimate.value):
            by_condition = found.setdefault(_kind(estimate, estimate.key.null), {})
            values = by_condition.setdefault(_condition(estimate.key), {})
            values[estimate.key.draw] = estimate.value
    return found


def _kind(estimate: Estimate, null: str) -> tuple[str, str, str]:
    key = estimate.key
    return estimate.measure, f"{key.dictionary} {key.compared} {key.massive}", null


def _condition(key: Key) -> Key:
    """What a number and its draws have in common: all but the draw, and the dictionary's seed."""
    return replace(key, null="", draw=None, seed=None)


def _predictions(by_condition: dict[Key, dict[int, float]]) -> dict[Key, Prediction]:
    values = [list(draws.values()) for draws in by_condition.values()]
    if max(map(len, values)) < 2:
        return {}
    return dict(zip(by_condition, moderated_prediction(values), strict=True))


def _beside_the_others(estimate: Estimate, draws: _Draws) -> Estimate:
    by_condition = draws.get(_kind(estimate, estimate.key.null), {})
    here = _condition(estimate.key)
    others = {n: v for n, v in by_condition.get(here, {}).items() if n != estimate.key.draw}
    if not others:
        return estimate
    every = {**by_condition, here: others}
    if max(map(len, every.values())) < 2:
        return estimate
    values = [list(each.values()) for each in every.values()]
    prediction = moderated_prediction(values, [list(every).index(here)])[0]
    return estimate.beside([_null(estimate, estimate.key.null, prediction, len(others))])


def _null(estimate: Estimate, name: str, prediction: Prediction, draws: int) -> Null:
    """The chance level of one condition, and the interval of the difference from it."""
    value = estimate.value
    return Null(
        name,
        prediction.level,
        prediction.low,
        prediction.high,
        rival=name in definition_of(estimate.measure).rivals,
        difference=(value - prediction.high, value - prediction.low),
        p=prediction.p(value),
        draws=draws,
    )
