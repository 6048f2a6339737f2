"""Numbers over seeds as a table: means with their intervals, spread between seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lorascope.measures.seeds import Pooled, over_seeds
from lorascope.results import Estimate

COLUMNS = (
    *("measure", "group", "rank", "site", "dictionary", "setting"),
    *("mean", "low", "high", "replicates", "numbers", "unit"),
    *("spread_adapters", "spread_dictionaries", "null", "chance", "chance_low", "chance_high"),
)


def seeds_table(estimates: Sequence[Estimate], groups: Mapping[str, str]) -> pd.DataFrame:
    """One row a measure and condition with several seeds, columns `COLUMNS`."""
    rows = [_row(pooled) for pooled in over_seeds(estimates, groups)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_seeds(estimates: Sequence[Estimate], groups: Mapping[str, str], folder: Path) -> None:
    """Write `seeds.csv` into a results folder."""
    seeds_table(estimates, groups).to_csv(folder / "seeds.csv", index=False)


def _row(pooled: Pooled) -> dict[str, object]:
    place = pooled.key
    row: dict[str, object] = {
        "measure": pooled.measure,
        "group": place.adapter,
        "rank": place.rank,
        "site": place.site,
        "dictionary": place.dictionary,
        "setting": place.setting,
        "mean": pooled.mean,
        "low": pooled.interval[0],
        "high": pooled.interval[1],
        "replicates": len(pooled.values),
        "numbers": pooled.n,
        "unit": pooled.unit,
        "spread_adapters": pooled.spread[0],
        "spread_dictionaries": pooled.spread[1],
    }
    if pooled.nulls:
        headline = pooled.nulls[0]
        row |= {"null": headline.name, "chance": headline.level}
        row |= {"chance_low": headline.low, "chance_high": headline.high}
    return row
