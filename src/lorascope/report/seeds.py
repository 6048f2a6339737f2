"""Numbers over seeds as a table: means with their intervals, spread between seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from lorascope.measures.definitions import declared
from lorascope.results import Estimate
from lorascope.results.seeds import Pooled, pooled
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text

_KEY = ("rank", "site", "dictionary", "compared", "k", "module", "setting", "massive")
COLUMNS = (
    *("measure", "group", *_KEY, "mean", "low", "high", "replicates", "numbers", "unit"),
    *("spread_adapters", "spread_dictionaries", "null", "chance", "chance_low", "chance_high"),
    "verdict",
)


def seeds_table(estimates: Sequence[Estimate], groups: Mapping[str, str]) -> pd.DataFrame:
    """One row a measure and condition of known adapters with several seeds, columns `COLUMNS`."""
    known = [declared(estimate) for estimate in estimates if estimate.key.adapter in groups]
    return pd.DataFrame([_row(one) for one in pooled(known, groups)], columns=list(COLUMNS))


def write_seeds(estimates: Sequence[Estimate], groups: Mapping[str, str], folder: Path) -> None:
    """Write `seeds.csv` into a results folder."""
    write_atomically(folder / "seeds.csv", csv_text(seeds_table(estimates, groups)))


def _row(one: Pooled) -> dict[str, object]:
    estimate, key = one.estimate, asdict(one.estimate.key)
    row: dict[str, object] = {
        "measure": estimate.measure,
        "group": estimate.key.adapter,
        **{name: key[name] for name in _KEY},
        "mean": estimate.value,
        "low": estimate.interval[0],
        "high": estimate.interval[1],
        "replicates": len(one.values),
        "numbers": one.n,
        "unit": estimate.unit,
        "spread_adapters": one.spread[0],
        "spread_dictionaries": one.spread[1],
        "verdict": estimate.verdict,
    }
    if (null := estimate.headline) is not None:
        row |= {"null": null.name, "chance": null.level}
        row |= {"chance_low": null.low, "chance_high": null.high}
    return row
