"""The results of a run as tables on disk: written from `Estimate`s, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lorascope.errors import InputError
from lorascope.results import Estimate, Key, Null

_PLACE: Final = ("adapter", "rank", "site", "seed", "dictionary")
ESTIMATE_COLUMNS: Final = (
    "measure",
    *_PLACE,
    "value",
    "chance",
    "low",
    "high",
    "n",
    "unit",
    "null",
    "chance_low",
    "chance_high",
    "setting",
    "verdict",
)
CHANCE_COLUMNS: Final = (
    "measure",
    *_PLACE,
    "setting",
    "null",
    "level",
    "low",
    "high",
    "verdict",
)
_TYPES: Final = {
    **dict.fromkeys(("measure", "adapter", "site", "dictionary"), "str"),
    **dict.fromkeys(("unit", "null", "setting", "verdict"), "str"),
    **dict.fromkeys(("rank", "seed", "n"), "Int64"),
    **dict.fromkeys(("value", "chance", "low", "high"), "float64"),
    **dict.fromkeys(("chance_low", "chance_high", "level"), "float64"),
}


@dataclass(frozen=True)
class Results:
    """What a finished run left behind.

    Attributes:
        run: the run folder.
        estimates: one row per estimate, columns `ESTIMATE_COLUMNS`.
        chance_levels: one row per estimate and null, columns `CHANCE_COLUMNS`.
        facts: everything that is not an estimate: model, adapters, tokens, gates, warnings, ….
            Its text comes from files and models and is not to be trusted as markup.
    """

    run: Path
    estimates: pd.DataFrame
    chance_levels: pd.DataFrame
    facts: dict[str, Any]

    @cached_property
    def numbers(self) -> tuple[Estimate, ...]:
        """The rows of both tables as `Estimate`s again, each with all its nulls."""
        nulls: dict[tuple[object, ...], list[Null]] = {}
        for row in self.chance_levels.to_dict("records"):
            chance = Null(row["null"], row["level"], row["low"], row["high"])
            nulls.setdefault(_key(row), []).append(chance)
        return tuple(
            _estimate(row, nulls.get(_key(row), [])) for row in self.estimates.to_dict("records")
        )

    @cached_property
    def adapters(self) -> list[str]:
        """Adapters in the order of the facts, then any that only the table knows."""
        named = [str(adapter["name"]) for adapter in self.facts.get("adapters", [])]
        return _in_order(named, self.estimates["adapter"])

    @cached_property
    def groups(self) -> dict[str, str]:
        """{adapter: the name it shares with those that differ from it in their seed alone}."""
        known = self.facts.get("adapters", [])
        named = {str(a["name"]): str(a.get("group", a["name"])) for a in known}
        return {name: named.get(name, name) for name in self.adapters}

    @cached_property
    def sites(self) -> list[str]:
        """Sites in the order of the facts, then any that only the table knows."""
        return _in_order(
            [str(site) for site in self.facts.get("sites", [])], self.estimates["site"]
        )


def write_estimates(estimates: Sequence[Estimate], folder: Path) -> None:
    """Write `estimates.{csv,parquet}` and `chance_levels.{csv,parquet}` into a results folder.

    Each file is written beside its final name and renamed, so that a reader never sees half of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"estimates": estimate_table(estimates), "chance_levels": chance_table(estimates)}
    for name, table in tables.items():
        parquet, csv = folder / f"{name}.parquet", folder / f"{name}.csv"
        table.to_parquet(parquet.with_suffix(".parquet.part"), index=False)
        table.to_csv(csv.with_suffix(".csv.part"), index=False)
        parquet.with_suffix(".parquet.part").replace(parquet)
        csv.with_suffix(".csv.part").replace(csv)


def estimate_table(estimates: Sequence[Estimate]) -> pd.DataFrame:
    """One row per estimate, columns `ESTIMATE_COLUMNS`."""
    return _frame([_estimate_row(estimate) for estimate in estimates], ESTIMATE_COLUMNS)


def chance_table(estimates: Sequence[Estimate]) -> pd.DataFrame:
    """One row per estimate and null, columns `CHANCE_COLUMNS`."""
    return _frame([row for e in estimates for row in _chance_rows(e)], CHANCE_COLUMNS)


def read_results(run: Path) -> Results:
    """Read `results/` of a finished run; InputError says which file is missing or damaged."""
    folder = Path(run) / "results"
    return Results(
        run=Path(run),
        estimates=_read_table(folder / "estimates.parquet", ESTIMATE_COLUMNS),
        chance_levels=_read_table(folder / "chance_levels.parquet", CHANCE_COLUMNS),
        facts=_read_facts(folder / "facts.json"),
    )


def _place(estimate: Estimate) -> dict[str, object]:
    return {"measure": estimate.measure, **{c: getattr(estimate.key, c) for c in _PLACE}}


def _estimate_row(estimate: Estimate) -> dict[str, object]:
    headline = estimate.nulls[0] if estimate.nulls else None
    return {
        **_place(estimate),
        "value": estimate.value,
        "chance": estimate.chance,
        "low": estimate.interval[0],
        "high": estimate.interval[1],
        "n": estimate.n,
        "unit": estimate.unit,
        "null": headline.name if headline else "",
        "chance_low": headline.low if headline else float("nan"),
        "chance_high": headline.high if headline else float("nan"),
        "setting": estimate.key.setting,
        "verdict": estimate.verdict,
    }


def _chance_rows(estimate: Estimate) -> list[dict[str, object]]:
    return [
        {
            **_place(estimate),
            "setting": estimate.key.setting,
            "null": chance.name,
            "level": chance.level,
            "low": chance.low,
            "high": chance.high,
            "verdict": estimate.against(chance),
        }
        for chance in estimate.nulls
    ]


def _key(row: dict[Any, Any]) -> tuple[object, ...]:
    return tuple(
        None if pd.isna(row[column]) else row[column] for column in ("measure", *_PLACE, "setting")
    )


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _estimate(row: dict[Any, Any], nulls: list[Null]) -> Estimate:
    headline = [chance for chance in nulls if chance.name == row["null"]]
    return Estimate(
        measure=row["measure"],
        value=row["value"],
        interval=(row["low"], row["high"]),
        n=_whole(row["n"]) or 0,
        unit=row["unit"],
        nulls=tuple(headline + [chance for chance in nulls if chance.name != row["null"]]),
        key=Key(
            adapter=row["adapter"],
            rank=_whole(row["rank"]),
            site=row["site"],
            seed=_whole(row["seed"]),
            dictionary=row["dictionary"],
            setting=row["setting"],
        ),
    )


def _frame(rows: list[dict[str, object]], columns: tuple[str, ...]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(columns))
    return table.astype({column: _TYPES[column] for column in columns})


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} is missing: finish the run first, then make its report.")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable parquet file; remake the run's results.") from (
            error
        )
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(f"{path} has no column {', '.join(missing)}; remake the run's results.")
    table = table[list(columns)].astype({column: _TYPES[column] for column in columns})
    text = [column for column in columns if _TYPES[column] == "str"]
    return table.assign(**{column: table[column].fillna("") for column in text})


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing: finish the run first, then make its report.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); remake the run's results.") from (
            error
        )
    if not isinstance(facts, dict):
        raise InputError(f"{path} must hold one JSON object; remake the run's results.")
    return facts


def _in_order(first: list[str], column: pd.Series) -> list[str]:
    known = dict.fromkeys(first)
    return list(known | dict.fromkeys(name for name in column if name))
