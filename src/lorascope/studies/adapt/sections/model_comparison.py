"""Adapt studies of several models beside each other: tables, figures and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lorascope.report.charts import intervals, null_rows, row_of
from lorascope.report.conditions import bounds
from lorascope.report.fact_tables import fact_table
from lorascope.report.figure import Figure
from lorascope.report.figure_files import write_figures
from lorascope.report.formatting import interval, number, plural, verdict_words
from lorascope.report.paper_table import PaperTable, PrintedCell
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.runs import write_atomically
from lorascope.studies.adapt.sections.page import Page, parts_of
from lorascope.studies.adapt.sections.results import COST_AFTER, COST_BEFORE, GENERAL, SHARE
from lorascope.studies.adapt.sections.tables import write_adapt_tables
from lorascope.studies.adapt.sections.words import ExperimentSection, hundredths

DIFFERENCE: Final = "adapt.share_difference"
_LOSSES: Final = {
    "Share closed": SHARE,
    "Less the first model's": DIFFERENCE,
    "Loss, original": "adapt.loss_original",
    "Loss, spliced": "adapt.loss_spliced",
    "Loss, adapted": "adapt.loss_adapted",
}
_FITS: Final = {
    "Share closed": SHARE,
    "Less the first model's": DIFFERENCE,
    "Cost, spliced": COST_BEFORE,
    "Cost, adapted": COST_AFTER,
    "General loss": GENERAL,
}
MEASURES: Final = tuple(dict.fromkeys([*_LOSSES.values(), *_FITS.values()]))
_SECTIONS: Final = (
    ExperimentSection(
        "models",
        "Model by model",
        "Does fitting recover the same share of what the reference dictionary costs each model?",
    ),
    ExperimentSection(
        "scaling",
        "Every dictionary and rank",
        "Do sparsity, width, depth and rank matter alike in each model?",
    ),
)


class ModelNumbers:
    """The numbers of several models' studies, by model, fit and dictionary.

    Attributes:
        models: name, reference dictionary, its LoRA fit and settings of each, in order.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.models: list[dict[str, Any]] = results.facts["models"]
        self._by_key = {
            (e.key.model, e.key.adapter, e.key.dictionary, e.measure): e for e in results.numbers
        }
        self._words = {fit: words for one in self.models for fit, words in one["fits"].items()}

    def words(self, fit: str) -> str:
        """What is fitted, in words."""
        return str(self._words[fit])

    def number(
        self, model: dict[str, Any], fit: str, measure: str, around: str = ""
    ) -> Estimate | None:
        """A measure of one fit, around the model's reference by default."""
        key = (model["name"], fit, around or model["reference"], measure)
        return self._by_key.get(key)

    @property
    def fitted(self) -> list[str]:
        """Names of what was fitted around the reference of two models or more."""
        names = list(dict.fromkeys(e.key.adapter for e in self.results.numbers))
        return [
            name
            for name in names
            if sum(self.number(model, name, SHARE) is not None for model in self.models) > 1
        ]

    def scaling(self, model: dict[str, Any]) -> list[Estimate]:
        """The loss recovered by LoRA around each of a model's dictionaries at each rank."""
        return [
            e
            for e in self.results.numbers
            if e.measure == SHARE
            and e.key.model == model["name"]
            and e.key.adapter in model["scaling"]
        ]


def models_figures(results: Results) -> list[Figure]:
    """Loss recovered, their costs, and shares by sparsity of every model."""
    beside = ModelNumbers(results)
    return [figure for make in (_shares, _costs, _sparsity) for figure in make(beside)]


def write_models_report(results: Results) -> Path:
    """Write `report/` of a comparison of models: figures, tables, the page, whose path it gives."""
    beside, folder = ModelNumbers(results), results.run / "report"
    drawn = models_figures(results)
    tables = {"models": [_losses(beside), _ways(beside)], "scaling": [_scaling(beside)]}
    tables = {key: [one for one in several if one.rows] for key, several in tables.items()}
    write_figures(drawn, folder / "figures")
    write_adapt_tables(tables, folder / "tables")
    facts = results.facts
    names = [str(model["name"]) for model in beside.models]
    page = Page(
        title=f"{' and '.join(names)} around their dictionaries",
        eyebrow="Models fitted around their dictionaries",
        heading=", ".join(names),
        scope=f"{plural(len(names), 'model')}, each from its own study; every share is of what "
        "splicing costs that model.",
        verdict=sentences(beside),
        warnings=[str(one) for one in facts.get("warnings", [])],
        parts=parts_of(_SECTIONS, {}, drawn, tables),
        fact_tables=[fact_table("Studies", [_study(model) for model in beside.models])],
        estimates=results.numbers,
        figures=drawn,
        command=str(facts.get("command", "")),
        settings=facts.get("settings", {}),
    )
    path = folder / "index.html"
    write_atomically(path, page.html())
    return path


def sentences(beside: ModelNumbers) -> list[str]:
    """What each model recovers, and whether it is more or less than the first's."""
    said = []
    for model in beside.models:
        share = beside.number(model, model["main"], SHARE)
        cost = beside.number(model, model["main"], COST_BEFORE)
        if cost is None:
            continue
        paid = f"{number(cost.value)} {interval(*cost.interval)} nats/token"
        if share is None:
            said.append(f"{model['name']}: {model['reference']} costs {paid}, nothing to recover.")
            continue
        low, high = (hundredths(bound) for bound in bounds(share))
        said.append(
            f"{model['name']}: {beside.words(model['main'])} recovers {hundredths(share.value)} % "
            f"[{low}, {high}] of the {paid} that {model['reference']} costs: "
            f"{verdict_words(share)}."
        )
    for model in beside.models[1:]:
        apart = beside.number(model, model["main"], DIFFERENCE)
        if apart is None:
            continue
        words = {
            "above": "more than",
            "below": "less than",
            "equal": f"within {hundredths(apart.margin or 0.0)} points of",
        }
        settled = words.get(apart.verdict, "not told apart from")
        low, high = (hundredths(bound) for bound in bounds(apart))
        said.append(
            f"The share of {model['name']} is {settled} that of {beside.models[0]['name']}: "
            f"{hundredths(apart.value)} points [{low}, {high}]."
        )
    return said


def _losses(beside: ModelNumbers) -> PaperTable:
    rows, estimates = [], []
    for model in beside.models:
        taken = [beside.number(model, model["main"], measure) for measure in _LOSSES.values()]
        estimates += [one for one in taken if one is not None]
        what = [
            PrintedCell.plain(str(model["reference"])),
            PrintedCell.plain(beside.words(model["main"])),
        ]
        rows.append((str(model["name"]), [*what, *map(PrintedCell.of, taken)]))
    columns = ["Dictionary", "Fitted", *_LOSSES]
    title = "Each model and its reference dictionary, nats/token"
    return PaperTable(1, "models", title, "Model", columns, rows, estimates)


def _ways(beside: ModelNumbers) -> PaperTable:
    rows, estimates = [], []
    for fitted in beside.fitted:
        for model in beside.models:
            taken = [beside.number(model, fitted, measure) for measure in _FITS.values()]
            if not any(taken):
                continue
            estimates += [one for one in taken if one is not None]
            rows.append(
                (
                    beside.words(fitted),
                    [PrintedCell.plain(str(model["name"])), *map(PrintedCell.of, taken)],
                )
            )
    title = "What is fitted around the reference, model by model, nats/token"
    return PaperTable(2, "models_fitted", title, "Fitted", ["Model", *_FITS], rows, estimates)


def _scaling(beside: ModelNumbers) -> PaperTable:
    rows, estimates = [], []
    columns = {name: measure for name, measure in _FITS.items() if measure != DIFFERENCE}
    for model in beside.models:
        for share in beside.scaling(model):
            place = share.key
            facts = model["dictionaries"][place.dictionary]
            taken = [
                beside.number(model, place.adapter, measure, place.dictionary)
                for measure in columns.values()
            ]
            estimates += [one for one in taken if one is not None]
            where = [
                PrintedCell.plain(place.dictionary),
                PrintedCell.plain(int(facts["n_latents"])),
            ]
            where += [
                PrintedCell.plain(float(facts["l0"])),
                PrintedCell.plain(beside.words(place.adapter)),
            ]
            rows.append((str(model["name"]), [*where, *map(PrintedCell.of, taken)]))
    names = ["Dictionary", "Latents", "L0", "Fitted", *columns]
    title = "Each dictionary and rank, model by model, nats/token"
    return PaperTable(3, "models_scaling", title, "Model", names, rows, estimates)


def _shares(beside: ModelNumbers) -> Iterator[Figure]:
    rows, nulls = [], []
    for fitted in beside.fitted:
        for model in beside.models:
            estimate = beside.number(model, fitted, SHARE)
            if estimate is not None:
                row = row_of(estimate, model["name"], "loss recovered")
                row |= {"site": beside.words(fitted)}
                rows.append(row)
                nulls += null_rows(estimate, row)
    if not rows:
        return
    unit = "share of the splice's cost recovered"
    panels = [beside.words(fit) for fit in beside.fitted]
    chart = intervals(rows, nulls, [], labels=_names(beside), sites=panels, x_title="", unit=unit)
    caption = (
        "A panel for each thing fitted, around each model's own reference dictionary. Grey: what a "
        "random change of equal size does, and nothing (0). Intervals over documents and seeds."
    )
    title = "Share of the splice's cost recovered, by model"
    yield Figure.of("models_share", "models", title, caption, chart)


def _costs(beside: ModelNumbers) -> Iterator[Figure]:
    rows = []
    for model in beside.models:
        for measure, series in ((COST_BEFORE, "spliced"), (COST_AFTER, "spliced and adapted")):
            estimate = beside.number(model, model["main"], measure)
            if estimate is not None:
                rows.append(row_of(estimate, model["name"], series) | {"site": ""})
    if not rows:
        return
    chart = intervals(
        rows, [], [], labels=_names(beside), sites=[""], x_title="", unit="nats/token"
    )
    caption = (
        "Cross-entropy above the model's own, before and after the fit. Grey: nothing spliced (0); "
        "after the fit, the rival it leaves least: what the splice cost before, or a random change."
    )
    title = "Cost of the splice, by model (nats/token)"
    yield Figure.of("models_cost", "models", title, caption, chart)


def _sparsity(beside: ModelNumbers) -> Iterator[Figure]:
    taken: list[tuple[float, str, Estimate]] = []
    for model in beside.models:
        reference = model["dictionaries"][model["reference"]]
        for share in beside.scaling(model):
            facts = model["dictionaries"][share.key.dictionary]
            alike = all(facts[key] == reference[key] for key in ("site", "n_latents"))
            if alike and share.key.adapter == model["main"]:
                taken.append((float(facts["l0"]), model["name"], share))
    taken.sort(key=lambda one: one[0])
    labels = list(dict.fromkeys(f"{l0:.0f}" for l0, _, _ in taken))
    if len(labels) < 2:
        return
    rows, nulls = [], []
    for l0, name, share in taken:
        row = row_of(share, f"{l0:.0f}", "loss recovered") | {"site": name}
        rows.append(row)
        nulls += null_rows(share, row)
    chart = intervals(
        rows,
        nulls,
        [],
        labels=labels,
        sites=_names(beside),
        x_title="active latents a token (L0)",
        unit="share of the splice's cost recovered",
        joined=True,
    )
    caption = (
        "A panel for each model: dictionaries at its reference's site and of its width. Grey: what "
        "a random change of equal size does, and nothing (0)."
    )
    title = "Over sparsity: share of the cost closed, by model"
    yield Figure.of("models_l0", "scaling", title, caption, chart)


def _names(beside: ModelNumbers) -> list[str]:
    return [str(model["name"]) for model in beside.models]


def _study(model: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "run", "documents", "tokens", "reference", "main", "seeds")
    return {key: model[key] for key in kept}
