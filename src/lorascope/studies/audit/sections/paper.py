"""The audit paper's tables 2 to 12, filled with a run's own numbers.

Each number stands with its interval and its chance level, in the layout of the paper's table of
the same number: a row a rank, a column a layer, where the paper has it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lorascope.measures.definitions import definition_of
from lorascope.report.formatting import detail
from lorascope.report.paper_table import PaperTable, PrintedCell, frame, latex
from lorascope.report.pooled import at_setting, conditions, group_labels, settings
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.labels import BASE, DELTA, DELTA_VS_BASE, Of
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text


def paper_tables(results: Results) -> list[PaperTable]:
    """Those of the tables that the run has numbers for."""
    return [table for make in _MAKERS for table in make(results) if table.rows]


def write_paper_tables(tables: Sequence[PaperTable], folder: Path) -> None:
    """Write `table_04_delta_norm.csv` and `.tex` of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        stem = folder / f"table_{table.number:02d}_{table.key}"
        write_atomically(stem.with_suffix(".csv"), csv_text(frame(table)))
        stem.with_suffix(".tex").write_text(latex(table), encoding="utf-8")


def _training(results: Results) -> Iterator[PaperTable]:
    columns = {
        "rank": "Rank",
        "seed": "Seed",
        "steps": "Steps",
        "parameters": "Parameters",
        "train_loss": "Training loss",
        "held_out_before": "Held out, base",
        "held_out_after": "Held out, adapted",
    }
    records = results.facts.get("adapter_training") or []
    rows = [
        (str(record["adapter"]), [PrintedCell.plain(record.get(key, "–")) for key in columns])
        for record in records
    ]
    title = "Adapter training results (loss in nats/token)"
    yield PaperTable(2, "training", title, "Adapter", list(columns.values()), rows, [])


def _configuration(results: Results) -> Iterator[PaperTable]:
    dictionaries = results.facts.get("settings", {}).get("dictionaries", {})
    rows = [
        (f"{part}.{name}".replace("_", " "), [PrintedCell.plain(_listed(value))])
        for part in ("architecture", "fitting")
        for name, value in dictionaries.get(part, {}).items()
    ]
    if "seeds" in dictionaries:
        rows.append(("seeds", [PrintedCell.plain(_listed(dictionaries["seeds"]))]))
    title = "Configuration of the dictionaries"
    yield PaperTable(3, "configuration", title, "Setting", ["Value"], rows, [])


def _by_layer(
    number_: int, key: str, measure: str, of: Of | None = None, words: str = ""
) -> Callable[[Results], Iterator[PaperTable]]:
    """A table of groups × sites."""

    def make(results: Results) -> Iterator[PaperTable]:
        found = conditions(results, measure, of)
        definition = definition_of(measure)
        title = f"{words or definition.title} ({definition.unit})"
        yield grid(number_, key, title, found, results)

    return make


def grid(
    number_: int, key: str, title: str, found: Sequence[Estimate], results: Results
) -> PaperTable:
    """A table with a row a group and a column a site."""
    sites = [site for site in results.sites if any(e.key.site == site for e in found)]
    by_place = {(e.key.adapter, e.key.site): e for e in found}
    rows = [
        (label, [PrintedCell.of(by_place.get((group, site))) for site in sites])
        for group, label in group_labels(found, results).items()
    ]
    return PaperTable(number_, key, title, _heading(found, results), sites, rows, list(found))


def _by_condition(
    number_: int, key: str, title: str, columns: dict[str, str], of: Of | None = None
) -> Callable[[Results], Iterator[PaperTable]]:
    """A table with a row a condition and a column a measure; several settings, several rows."""

    def make(results: Results) -> Iterator[PaperTable]:
        measured = {m: conditions(results, m, of) for m in columns}
        every = [e for several in measured.values() for e in several]
        rows = []
        labels = group_labels(every, results)
        for setting in settings(every):
            here = {m: at_setting(found, setting) for m, found in measured.items()}
            for group, label in labels.items():
                for site in results.sites:
                    cells = [PrintedCell.of(_at(found, group, site)) for found in here.values()]
                    if any(cell.text != "–" for cell in cells):
                        parts = (label, site, detail(setting))
                        rows.append((", ".join(part for part in parts if part), cells))
        heading = f"{_heading(every, results)}, site"
        yield PaperTable(number_, key, title, heading, list(columns.values()), rows, every)

    return make


def _ablation(results: Results) -> Iterator[PaperTable]:
    columns = {
        "ablation.density": "L0 on held-out deltas",
        "ablation.relative_error": "Relative error",
        "ablation.dead_share": "Dead latents",
    }
    measured = {measure: conditions(results, measure) for measure in columns}
    every = [e for several in measured.values() for e in several]
    rows = [
        (
            detail(setting),
            [PrintedCell.of(next(iter(at_setting(f, setting)), None)) for f in measured.values()],
        )
        for setting in settings(every)
    ]
    where = every[0].key if every else None
    title = "Sparsity ablation"
    if where is not None:
        title = f"{title}: {where.adapter} at {where.site}"
    yield PaperTable(12, "ablation", title, "Setting", list(columns.values()), rows, every)


def _heading(found: Sequence[Estimate], results: Results) -> str:
    labels = group_labels(found, results)
    return "Rank" if labels and all(text.isdigit() for text in labels.values()) else "Adapter"


def _at(found: Sequence[Estimate], group: str, site: str) -> Estimate | None:
    places = ((e.key.adapter, e.key.site) for e in found)
    return next((e for e, place in zip(found, places, strict=True) if place == (group, site)), None)


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


_MAKERS: tuple[Callable[[Results], Iterator[PaperTable]], ...] = (
    _training,
    _configuration,
    _by_layer(4, "delta_norm", "delta_norm", words="Mean delta norm ‖h_Δ‖"),
    _by_layer(5, "base_error", "relative_error", Of(BASE), "Relative error of the base dictionary"),
    _by_layer(
        6, "delta_error", "relative_error", Of(DELTA), "Relative error of the delta dictionary"
    ),
    _by_layer(
        7, "improvement", "improvement", words="Improvement of the delta dictionary over the base's"
    ),
    _by_condition(
        8,
        "overlap",
        "Latents of the base dictionary active on the delta",
        {"overlap": "Overlap", "weakly_aligned": "Weakly aligned"},
    ),
    _by_condition(
        9,
        "max_cosine",
        "Max cosine of delta directions with base directions",
        {
            "max_cosine.mean": "Mean",
            "max_cosine.median": "Median",
            "max_cosine.q90": "90th percentile",
            "max_cosine.above_0.7": "Above 0.7",
            "max_cosine.below_0.3": "Below 0.3",
        },
        DELTA_VS_BASE,
    ),
    _by_condition(
        10,
        "angles",
        "Principal angles between delta and base dictionary",
        {
            "angle.mean": "Mean (°)",
            "angle.min": "Smallest (°)",
            "angle.above_70": "Above 70°",
            "angle.below_20": "Below 20°",
        },
        DELTA_VS_BASE,
    ),
    _by_condition(
        11,
        "cka",
        "Linear CKA",
        {
            "cka.base_delta": "Base, delta",
            "cka_debiased.base_delta": "Base, delta, debiased",
            "cka.base_adapted": "Base, adapted",
            "cka_debiased.base_adapted": "Base, adapted, debiased",
        },
    ),
    _ablation,
)
