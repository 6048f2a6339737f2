"""The tables of an adapt report, one or two an experiment, as HTML, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lorascope.report.paper_table import PaperTable, PrintedCell, frame, latex
from lorascope.report.placing import further
from lorascope.results import Estimate, Key
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text
from lorascope.studies.adapt.sections.results import (
    COST_AFTER,
    COST_BEFORE,
    GENERAL,
    SHARE,
    AdaptResults,
    FitCondition,
)

# What was gained comes first; the price follows it, so that no narrow window hides it.
_GAINS = {"Share closed": SHARE, "Recovered": "adapt.recovered"}
_AFTER = {
    "Cost, adapted": COST_AFTER,
    "KL, adapted": "adapt.kl_adapted",
    "General loss": GENERAL,
}


def adapt_tables(found: AdaptResults) -> dict[str, list[PaperTable]]:
    """{section: its tables}; sections without numbers have none."""
    made: dict[str, list[PaperTable]] = {}
    number = 0
    for section, make in _MAKERS.items():
        for table in make(found):
            if table.estimates:
                number += 1
                made.setdefault(section, []).append(
                    PaperTable(**{**table.__dict__, "number": number})
                )
    return made


def write_adapt_tables(tables: dict[str, list[PaperTable]], folder: Path) -> None:
    """Write `<key>.csv` and `<key>.tex` of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in (table for several in tables.values() for table in several):
        write_atomically(folder / f"{table.key}.csv", csv_text(frame(table)))
        (folder / f"{table.key}.tex").write_text(latex(table), encoding="utf-8")


def _table(
    key: str,
    title: str,
    heading: str,
    columns: Sequence[str],
    rows: list[tuple[str, list[PrintedCell]]],
    estimates: list[Estimate],
) -> PaperTable:
    return PaperTable(0, key, title, heading, list(columns), rows, estimates)


def _numbers(
    found: AdaptResults, condition: FitCondition, measures: Sequence[str]
) -> tuple[list[PrintedCell], list[Estimate]]:
    taken = [found.number(condition, measure) for measure in measures]
    return [PrintedCell.of(one) for one in taken], [one for one in taken if one is not None]


def _baselines(found: AdaptResults) -> Iterator[PaperTable]:
    conditions = found.conditions("baselines")
    if not conditions:
        return
    first, none, zero = conditions[0], PrintedCell("–"), PrintedCell("0", "", 0.0)
    before = PrintedCell.of(found.number(first, COST_BEFORE))
    divergence = PrintedCell.of(found.number(first, "adapt.kl_spliced"))
    rows = [("nothing", [zero, zero, none, none, before, divergence, none])]
    estimates = []
    for condition in conditions:
        gains, some = _numbers(found, condition, list(_GAINS.values()))
        after, others = _numbers(found, condition, list(_AFTER.values()))
        fits = found.fits(condition)
        seconds = sum(fit["fit_seconds"] for fit in fits) / len(fits)
        price = [PrintedCell.plain(float(seconds)), PrintedCell.plain(int(fits[0]["parameters"]))]
        rows.append((condition.fitted, [*gains, *price, *after]))
        estimates += [*some, *others]
    columns = [*_GAINS, "Seconds", "Parameters", *_AFTER]
    title = f"What is fitted around {found.reference}, nats/token"
    yield _table("baselines", title, "Fitted", columns, rows, estimates)
    losses = [found.number(first, measure) for measure in _LOSSES.values()]
    title = f"Cross-entropy with and without {found.reference}, nats/token"
    taken = [one for one in losses if one is not None]
    rows = [("the model", [PrintedCell.of(one) for one in losses])]
    yield _table("losses", title, "Of", list(_LOSSES), rows, taken)


_LOSSES = {"Original": "adapt.loss_original", "Spliced": "adapt.loss_spliced"}


def _scaling(found: AdaptResults) -> Iterator[PaperTable]:
    conditions = found.conditions("scaling")
    measures = {**_GAINS, "Cost, spliced": COST_BEFORE, **_AFTER}
    rows, estimates = [], []
    for condition in conditions:
        facts = found.dictionaries[condition.around]
        cells, some = _numbers(found, condition, list(measures.values()))
        where = [
            PrintedCell.plain(str(facts["site"])),
            PrintedCell.plain(int(facts["n_latents"])),
            PrintedCell.plain(float(facts["l0"])),
            PrintedCell.plain(int(condition.rank or 0)),
        ]
        rows.append((condition.around, [*where, *cells]))
        estimates += some
    columns = ["Site", "Latents", "L0", "Rank", *measures]
    title = "Each dictionary and rank, nats/token"
    columns, rows, title = _without_constant(columns, rows, title, 4)
    yield _table("scaling", title, "Dictionary", columns, rows, estimates)


def _without_constant(
    columns: list[str], rows: list[tuple[str, list[PrintedCell]]], title: str, first: int
) -> tuple[list[str], list[tuple[str, list[PrintedCell]]], str]:
    """Of the first columns, those whose rows all say the same go into the title."""
    if len(rows) < 2:
        return columns, rows, title
    alike = [i for i in range(first) if len({cells[i].text for _, cells in rows}) == 1]
    said = [f"{columns[i].lower()} {rows[0][1][i].text}" for i in alike]
    kept = [i for i in range(len(columns)) if i not in alike]
    return (
        [columns[i] for i in kept],
        [(label, [cells[i] for i in kept]) for label, cells in rows],
        f"{title}; all: {', '.join(said)}" if said else title,
    )


def _single(found: AdaptResults) -> Iterator[PaperTable]:
    measures = {
        "Share closed": SHARE,
        "Recovered": "adapt.recovered",
        "Of all blocks": "adapt.next_share",
        "Cost, adapted": COST_AFTER,
    }
    rows, estimates = [], []
    conditions = found.conditions("single")
    for condition in [*conditions, *found.conditions("reference")[: bool(conditions)]]:
        cells, some = _numbers(found, condition, list(measures.values()))
        rows.append((condition.fitted, cells))
        estimates += some
    title = "LoRA on one block alone"
    yield _table("single_blocks", title, "Fitted", list(measures), rows, estimates)


def _several(found: AdaptResults) -> Iterator[PaperTable]:
    measures = {
        "Loss, original": "adapt.loss_original",
        "Loss, spliced": "adapt.loss_spliced",
        "Loss, adapted": "adapt.loss_adapted",
        "Share closed": SHARE,
        "Cost over sum, spliced": "adapt.compound_spliced",
        "Cost over sum, adapted": "adapt.compound_adapted",
    }
    rows, estimates = [], []
    for condition in found.conditions("several"):
        cells, some = _numbers(found, condition, list(measures.values()))
        label = f"{len(condition.sites)}: {', '.join(condition.sites)}"
        rows.append((label, cells))
        estimates += some
    title = "Several dictionaries at once, nats/token"
    yield _table("several", title, "Sites", list(measures), rows, estimates)


def _times(found: AdaptResults) -> Iterator[PaperTable]:
    times = found.all_of("adapt.time_to_loss")
    ups = {e.key.loss: e for e in found.all_of("adapt.speed_up")}
    curves = list(found.facts.get("times", {}))
    by_level: dict[float | None, dict[str, Estimate]] = {}
    for one in times:
        by_level.setdefault(one.key.loss, {})[one.key.adapter] = one
    rows = []
    for level, taken in by_level.items():
        cells = [PrintedCell.of(taken.get(curve)) for curve in curves]
        rows.append((f"{level:.3f}", [*cells, PrintedCell.of(ups.get(level))]))
    title = "Seconds to each loss, and how many times sooner LoRA is than end to end"
    columns = [*curves, "Speed-up"]
    yield _table("times", title, "Loss", columns, rows, [*times, *ups.values()])


def _tokens(found: AdaptResults) -> Iterator[PaperTable]:
    measures = {
        "Share that gets worse": "adapt.tokens_worse",
        "Gained by those that get better": "adapt.token_gains",
        "Lost by those that get worse": "adapt.token_losses",
    }
    rows, estimates = [], []
    for condition in found.conditions("reference"):
        cells, some = _numbers(found, condition, list(measures.values()))
        rows.append((condition.fitted, cells))
        estimates += some
    title = "Single tokens, from spliced to adapted"
    yield _table("tokens", title, "Fitted", list(measures), rows, estimates)


def _streams(found: AdaptResults) -> Iterator[PaperTable]:
    measures = {
        "Distance": "adapt.distance",
        "Change of distance": "adapt.distance_change",
        "Euclidean": "adapt.euclidean",
        "Change of Euclidean": "adapt.euclidean_change",
        "Cosine": "adapt.cosine",
        "Change of cosine": "adapt.cosine_change",
    }
    title = "Streams behind the site against the original's"
    yield _by_place(found, "streams", title, "Site", measures, lambda place: place.site)


def _steering(found: AdaptResults) -> Iterator[PaperTable]:
    measures = {
        "Positive, without": "steering.before_positive",
        "Positive, with": "steering.after_positive",
        "Δ positive": "steering.change_positive",
        "Negative, without": "steering.before_negative",
        "Negative, with": "steering.after_negative",
        "Δ negative": "steering.change_negative",
    }
    title = "Change of mean log p under steering, points"
    yield _by_place(found, "steering", title, "Latent", measures, further)


def _by_place(
    found: AdaptResults,
    key: str,
    title: str,
    heading: str,
    measures: dict[str, str],
    named: Callable[[Key], str],
) -> PaperTable:
    """A row for each site or latent at which the measures were taken."""
    taken: dict[str, dict[str, Estimate]] = {}
    for column, measure in measures.items():
        for one in found.all_of(measure):
            taken.setdefault(named(one.key), {})[column] = one
    rows = [
        (label, [PrintedCell.of(some.get(name)) for name in measures])
        for label, some in taken.items()
    ]
    estimates = [one for some in taken.values() for one in some.values()]
    return _table(key, title, heading, list(measures), rows, estimates)


_MAKERS: dict[str, Callable[[AdaptResults], Iterator[PaperTable]]] = {
    "baselines": _baselines,
    "scaling": _scaling,
    "times": _times,
    "several": _several,
    "tokens": _tokens,
    "streams": _streams,
    "single": _single,
    "steering": _steering,
}
