"""The results of a run on disk: written from `Estimates`, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.folder_contents import require_finished
from lorascope.measures.definitions import declared
from lorascope.results import Estimate, Estimates
from lorascope.results.labels import Of
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text

TABLE = "estimates.parquet"


@dataclass(frozen=True)
class Results:
    """What a finished run left behind.

    Attributes:
        run: the run folder.
        estimates: every number, those of null adapters too.
        facts: everything that is not an estimate: model, adapters, tokens, sanity checks,
            warnings, …. Its text comes from files and models and is not to be trusted as markup.
    """

    run: Path
    estimates: Estimates
    facts: dict[str, Any]

    @cached_property
    def numbers(self) -> Estimates:
        """The numbers of the adapters that were given, not of null adapters."""
        return self.estimates.of_adapters

    @cached_property
    def pooled(self) -> dict[tuple[str, Of | None], tuple[Estimate, ...]]:
        """What `report.pooled.conditions` has found: figures, tables and texts ask again."""
        return {}

    @cached_property
    def adapters(self) -> list[str]:
        """Adapters in the order of the facts, then any that only the table knows."""
        named = [str(adapter["name"]) for adapter in self.facts.get("adapters", [])]
        return _in_order(named, (estimate.key.adapter for estimate in self.numbers))

    @cached_property
    def groups(self) -> dict[str, str]:
        """{adapter: the name it shares with those that differ from it in their seed alone}."""
        known = self.facts.get("adapters", [])
        named = {str(a["name"]): str(a.get("group", a["name"])) for a in known}
        return {name: named.get(name, name) for name in self.adapters}

    @cached_property
    def sites(self) -> list[str]:
        """Sites in the order of the facts, then any that only the table knows."""
        named = [str(site) for site in self.facts.get("sites", [])]
        return _in_order(named, (estimate.key.site for estimate in self.numbers))


def write_estimates(estimates: Iterable[Estimate], folder: Path) -> None:
    """Write `estimates.parquet`, the whole, and `estimates.csv` and `chance_levels.csv` to read.

    Every number is written with what its definition declares. Each file is written beside its
    final name and renamed, so that a reader never sees half of it.
    """
    every = Estimates(declared(estimate) for estimate in estimates)
    every.write(folder / TABLE)
    tables = {"estimates": every.to_frame(), "chance_levels": every.nulls_frame()}
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", csv_text(table))


def read_results(run: Path) -> Results:
    """Read `results/` of a finished run; InputError says which file is missing or damaged."""
    require_finished(Path(run))
    folder = Path(run) / "results"
    return Results(Path(run), Estimates.read(folder / TABLE), _read_facts(folder / "facts.json"))


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
    if "gates" in facts:  # what sanity checks were called in runs made before they had this name
        facts["sanity_checks"] = [{"check": one.get("gate", ""), **one} for one in facts["gates"]]
    return facts


def _in_order(first: list[str], names: Iterable[str]) -> list[str]:
    known = dict.fromkeys(first)
    return list(known | dict.fromkeys(name for name in names if name))
