"""What two adapters of one base model did differently: `lorascope compare`.

1. Open both runs, match their held-out rows, refuse what cannot be compared.
2. At every common site: agreement token by token, subspaces, dictionaries, latents active in one
   only, tokens and documents where the deltas differ most.
3. Write estimates, latents and texts, and the report made from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lorascope.activations.scaling import mean_and_covariance
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures import alignment, comparison
from lorascope.measures.comparison import DeltaPair
from lorascope.measures.definitions import declared
from lorascope.measures.exclusive_latents import (
    OnlyHere,
    activity,
    latent_estimates,
    only_here,
)
from lorascope.measures.firing import firing
from lorascope.progress import Reporter
from lorascope.report.result import write_estimates
from lorascope.results import Estimate, Key
from lorascope.results.labels import DELTA, DELTA_SEEDS
from lorascope.runs import versions, write_atomically, write_json
from lorascope.spreadsheets import csv_text
from lorascope.studies.compare.excerpts import Excerpts
from lorascope.studies.compare.finished import shared_sites
from lorascope.studies.compare.page import LATENT_COLUMNS, TEXT_COLUMNS, write_comparison
from lorascope.studies.compare.pairing import ComparedAdapter, Paired, pair, sides
from lorascope.studies.compare.study import CompareSettings
from lorascope.workflows.comparison_folders import MARK, require_free
from lorascope.workflows.measured import Measured

WORKFLOW = "compare"


@dataclass
class Comparison:
    """What a comparison found.

    Attributes:
        estimates: every number.
        latents: one row a latent of either adapter's dictionaries, columns `LATENT_COLUMNS`.
        texts: documents, tokens and latents' contexts, columns `TEXT_COLUMNS`.
        facts: who was compared, on what, and what had to be left out.
        report: path of the page.
    """

    estimates: list[Estimate] = field(default_factory=list)
    latents: pd.DataFrame = field(default_factory=pd.DataFrame)
    texts: pd.DataFrame = field(default_factory=pd.DataFrame)
    facts: dict[str, Any] = field(default_factory=dict)
    report: Path = Path()


def compare(
    settings: CompareSettings, out: Path | None, reporter: Reporter, command: str = ""
) -> Comparison:
    """Compare two adapters and write the findings into `out`.

    Args:
        out: a new folder or an earlier comparison's; `runs/compare-FIRST-SECOND` by default.

    Raises:
        InputError: the two cannot be compared, or `out` holds something else.
    """
    first, second = sides(settings.first, settings.second)
    folder = out or Path("runs") / _name(first, second)
    require_free(folder)
    sites = shared_sites(first.run, second.run, settings.sites)
    paired = pair(first, second, settings.rows)
    found = Comparison(facts=_facts(settings, paired, sites, command))
    measured, latents, texts = Measured(), _Rows(), _Rows()
    with reporter.bar("comparing", len(sites), "sites") as advance:
        for site in sites:
            _Site(settings, paired, site, measured, latents, texts).compare()
            advance(1)
    # As they are written and read again: page, terminal and table then say the same.
    found.estimates = [declared(estimate) for estimate in measured.estimates]
    found.facts["warnings"] = measured.told
    found.latents = pd.DataFrame(latents, columns=list(LATENT_COLUMNS))
    found.texts = pd.DataFrame(texts, columns=list(TEXT_COLUMNS))
    _write(found, folder)
    return found


_Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Site:
    """The comparison at one site; what is found goes into the lists it was given."""

    settings: CompareSettings
    paired: Paired
    site: str
    measured: Measured
    latents: _Rows
    texts: _Rows

    def compare(self) -> None:
        paired, settings = self.paired, self.settings
        rows = paired.load(self.site)
        excerpts = Excerpts(paired)
        one, two = (Key(adapter=s.label, site=self.site) for s in (paired.first, paired.second))
        both, turned = (
            replace(own, compared=other.adapter) for own, other in ((one, two), (two, one))
        )
        agree = partial(comparison.agreement_estimates, rows, both, settings.seed)
        self.measured.attempt(both, agree)
        spaces = partial(
            comparison.subspace_estimates,
            rows,
            self._sizes(rows),
            (both, turned),
            seed=settings.seed,
            repeats=settings.repeats,
        )
        self.measured.attempt(both, spaces)
        self.texts.extend(excerpts.differences(rows, self.site, settings.texts))
        ours, theirs = (self._dictionaries(side) for side in (paired.first, paired.second))
        for seed, own in ours.items():
            self._with_dictionaries(rows, seed, own, theirs[seed], (one, two, both))
        self._latents(rows, ours, theirs, (one, two), excerpts)

    def _sizes(self, rows: DeltaPair) -> tuple[int, ...]:
        d = rows.base.shape[1]
        return self.paired.first.run.study.measures.angles_k or (max(1, min(256, d // 4)),)

    def _dictionaries(self, side: ComparedAdapter) -> dict[int, Dictionary]:
        """The adapter's delta dictionaries, as many as both have, the first one's seeds as keys."""
        seeds = [s.run.study.dictionaries.seeds for s in (self.paired.first, self.paired.second)]
        named = zip(*seeds, side.run.study.dictionaries.seeds, strict=False)
        return {seed: side.run.delta(self.site, side.adapter, own) for seed, _, own in named}

    def _with_dictionaries(
        self,
        rows: DeltaPair,
        seed: int,
        ours: Dictionary,
        theirs: Dictionary,
        places: tuple[Key, Key, Key],
    ) -> None:
        """What one pair of dictionaries makes of the deltas, and of each other's directions."""
        one, two, both = (replace(place, seed=seed) for place in places)
        for place, delta, own, other in (
            (one, rows.first, ours, theirs),
            (two, rows.second, theirs, ours),
        ):
            energies = partial(
                comparison.energy_estimates,
                delta,
                rows.documents,
                own,
                other,
                place,
                self.settings.seed,
            )
            self.measured.attempt(place, energies)
        self._aligned(rows, ours, theirs, both)

    def _latents(
        self,
        rows: DeltaPair,
        ours: dict[int, Dictionary],
        theirs: dict[int, Dictionary],
        places: tuple[Key, Key],
        excerpts: Excerpts,
    ) -> None:
        """The latents of either adapter that are active under it alone."""
        turned, settings = rows.turned, self.settings
        first = [activity(dictionary, rows, settings.seed) for dictionary in ours.values()]
        second = [activity(dictionary, turned, settings.seed) for dictionary in theirs.values()]
        for place, dictionaries, delta, own, other in (
            (places[0], ours, rows.first, first, second),
            (places[1], theirs, rows.second, second, first),
        ):
            found = only_here(own, other, settings.false_rate)
            self.measured.attempt(place, partial(latent_estimates, found, place))
            for index, (seed, dictionary) in enumerate(dictionaries.items()):
                here = replace(place, seed=seed)
                self.latents.extend(_latent_rows(found, index, here))
                shown = found.listed(index)[: settings.listed]
                self.texts.extend(
                    excerpts.contexts(dictionary, delta, shown, here, settings.contexts)
                )

    def _aligned(self, rows: DeltaPair, ours: Dictionary, theirs: Dictionary, both: Key) -> None:
        """Cosines and angles of the two dictionaries, and of seed pairs of the first one's."""
        _, of_delta = mean_and_covariance([rows.first])
        _, of_base = mean_and_covariance([rows.base])
        settings = self.settings
        nulls = alignment.NullSettings(of_delta, of_base, settings.repeats, settings.seed)
        alive = firing(ours, rows.first).alive
        pairs = [(replace(both, dictionary=DELTA), theirs)]
        seeds = self.paired.first.run.study.dictionaries.seeds
        if seeds[0] == both.seed and len(seeds) > 1:
            again = replace(both, **DELTA_SEEDS._asdict())
            pairs.append((again, self._second_of(self.paired.first)))
        for place, other in pairs:
            shared: dict[str, Any] = {"nulls": nulls, "place": place, "alive": alive}
            directions = (ours.directions, other.directions)
            self.measured.attempt(
                place, partial(alignment.max_cosine_estimates, *directions, **shared)
            )
            angles = partial(alignment.angle_estimates, *directions, k=self._sizes(rows), **shared)
            self.measured.attempt(place, angles)

    def _second_of(self, side: ComparedAdapter) -> Dictionary:
        return side.run.delta(self.site, side.adapter, side.run.study.dictionaries.seeds[1])


def _latent_rows(only: OnlyHere, index: int, place: Key) -> _Rows:
    """One row a latent that fires at all, columns `LATENT_COLUMNS`."""
    found, listed = only.found[index], set(only.listed(index).tolist())
    one_sided = found.one_sided.tolist()
    columns = {
        "documents": found.documents,
        "density": found.density[0],
        "density_other": found.density[1],
        "contrast": found.contrast,
        "contrast_low": found.contrast_low,
        "contrast_high": found.contrast_high,
        "energy": found.energy[0],
        "energy_low": found.energy_low[0],
        "energy_high": found.energy_high[0],
        "energy_chance": found.chance[0],
        "energy_chance_high": found.chance_high[0],
        "energy_other": found.energy[1],
        "energy_other_low": found.energy_low[1],
        "energy_other_high": found.energy_high[1],
        "energy_other_chance": found.chance[1],
        "energy_other_chance_high": found.chance_high[1],
        "excess": found.excess,
        "false_discovery_rate": only.rates[index],
    }
    values = {name: column.tolist() for name, column in columns.items()}
    rows = [
        {
            "adapter": place.adapter,
            "site": place.site,
            "seed": place.seed,
            "latent": latent,
            **{name: column[latent] for name, column in values.items()},
            "one_sided": one_sided[latent],
            "only_here": latent in listed,
        }
        for latent in range(len(one_sided))
        if values["documents"][latent]
    ]
    return sorted(rows, key=lambda r: (not r["only_here"], not r["one_sided"], -r["excess"]))


def _facts(
    settings: CompareSettings, paired: Paired, sites: list[str], command: str
) -> dict[str, Any]:
    first, second = paired.first, paired.second
    adapters = []
    for side in (first, second):
        known = side.run.facts["adapters"][side.adapter]
        kept = {key: known.get(key) for key in ("rank", "alpha", "path", "sha256")}
        adapters.append({"name": side.label, "run": str(side.run.folder), **kept})
    return {
        "workflow": WORKFLOW,
        "model": first.run.model,
        "adapters": adapters,
        "sites": sites,
        "tokens": {
            "compared": {
                "documents": len(paired.documents.unique()),
                "tokens": len(paired),
            }
        },
        "false_rate": settings.false_rate,
        "warnings": [],
        "command": command,
        "settings": settings.plain(),
        "versions": versions(),
    }


def _name(first: ComparedAdapter, second: ComparedAdapter) -> str:
    return f"compare-{first.label}-{second.label}".replace("/", "-")


def _write(found: Comparison, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: found.facts[key] for key in ("settings", "versions", "command")}
    write_json(folder / MARK, settings)
    write_estimates(found.estimates, folder / "results")
    facts = json.dumps(found.facts, indent=1, ensure_ascii=False)
    write_atomically(folder / "results" / "facts.json", facts + "\n")
    write_atomically(folder / "latents.csv", csv_text(found.latents))
    write_atomically(folder / "texts.csv", csv_text(found.texts))
    found.report = write_comparison(
        folder, found.estimates, found.latents, found.texts, found.facts
    )
