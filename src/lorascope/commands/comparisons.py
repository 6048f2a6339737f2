"""The command `compare`: two audits or evaluations, several models' studies, or many adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands import resembling
from lorascope.commands.options import Quiet
from lorascope.commands.running import command_line
from lorascope.errors import InputError
from lorascope.printing import Column, say, say_json, say_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lorascope.results import Estimate
    from lorascope.studies.compare.workflow import Comparison


_Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN[:ADAPTER]... | ADAPTER...",
        help="Finished audits, two at most, :ADAPTER for another of the same run; or runs of "
        "lorascope adapt, two or more; or two runs of lorascope evaluate, :SUBJECT where a run "
        "holds several; or folders of adapters, two or more.",
    ),
]
_Sites = Annotated[
    str | None, typer.Option(help="Comma-separated; by default all that both captured.")
]
_Rows = Annotated[int, typer.Option(help="Most common tokens to use.")]
_FalseRate = Annotated[
    float, typer.Option("--false-rate", help="Share of listed latents that may be false.")
]
_Seed = Annotated[int, typer.Option(help="Of the draws of nulls and bootstraps.")]
_Out = Annotated[
    Path | None, typer.Option("--out", help="Folder; runs/compare-FIRST-SECOND by default.")
]


def compare(
    context: typer.Context,
    runs: _Runs,
    sites: _Sites = None,
    rows: _Rows = 20000,
    false_rate: _FalseRate = 0.1,
    seed: _Seed = 0,
    out: _Out = None,
    model: resembling.Model = None,
    texts: resembling.Texts = None,
    documents: resembling.Documents = 32,
    tokens: resembling.Tokens = 64,
    draws: resembling.Draws = 10,
    alike: resembling.Alike = None,
    json_: Annotated[bool, typer.Option("--json", help="Plain JSON instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two adapters of one base model, or two evaluations: what is different?

    Reads finished audits, no weights. Says how alike the deltas are token by token, which latents
    are active under one adapter only and on which texts, and where the two differ most. An address
    is a run folder, with :ADAPTER where the run holds several.

    Two runs of lorascope evaluate, or RUN:SUBJECT, are held against each other on the texts, sets
    and letters that both have.

    Runs of lorascope adapt are held against each other model by model: what splicing costs each and
    what share of it comes back.

    Folders of adapters, any number of one base, are held against one another by their updates, over
    the inputs that the base gives them and as matrices: which known adapter is this like?

    **Examples**

    `lorascope compare runs/benign runs/suspect`

    `lorascope compare runs/benign:r8 runs/suspect:r8 --json`

    `lorascope compare runs/adapt-gemma runs/adapt-llama runs/adapt-embedded`

    `lorascope compare runs/evaluated runs/evaluated-other`

    `lorascope compare adapters/new adapters/known-* --alike known-a0,known-a1`
    """
    command = command_line()
    if resembling.are_adapters(runs, model):
        _refuse_given(context, ("sites", "rows", "false_rate"), "is for audits")
        given = {"model": model, "texts": texts, "documents": documents, "tokens": tokens}
        given |= {"draws": draws, "seed": seed, "alike": alike}
        return resembling.resemble(given, runs, out, json_, quiet, command)
    _refuse_given(context, resembling.OPTIONS, "is for folders of adapters")
    if _are_evaluations(runs, context):
        return _evaluations(runs, out, json_, command)
    if _are_studies(runs, context):
        return _models([Path(run) for run in runs], out, json_, command)
    where = [s.strip() for s in (sites or "").split(",") if s.strip()]
    settings = {"first": runs[0], "second": runs[-1], "sites": where, "rows": rows}
    settings |= {"false_rate": false_rate, "seed": seed}
    return _adapters(settings, out, json_, quiet, command)


def _are_evaluations(runs: list[str], context: typer.Context) -> bool:
    """Whether these are two evaluations, and nothing was asked that suits none."""
    from lorascope.studies.evaluate.finished import is_evaluation

    found = [run for run in runs if is_evaluation(run, runs[0])]
    if not found:
        return False
    for run in runs:
        if run not in found:
            raise InputError(f"{run}: no run of lorascope evaluate, as {found[0]} is one")
    if len(runs) != 2:
        raise InputError(
            f"{len(runs)} evaluations; give two, or RUN:SUBJECT and :SUBJECT of the same run"
        )
    _refuse_given(context, ("sites", "rows", "false_rate", "seed"), "is for audits")
    return True


def _are_studies(runs: list[str], context: typer.Context) -> bool:
    """Whether these are runs of `lorascope adapt`, and nothing was asked that suits none."""
    from lorascope.studies.adapt.finished import is_adapt

    studies = [run for run in runs if is_adapt(run)]
    if not studies:
        if len(runs) > 2:
            raise InputError(f"{len(runs)} audits; give two, or RUN:ADAPTER and :ADAPTER")
        return False
    for run in runs:
        if run not in studies:
            raise InputError(f"{run}: no run of lorascope adapt, as {studies[0]} is one")
    _refuse_given(context, ("sites", "rows", "false_rate", "seed"), "is for audits")
    return True


def _refuse_given(context: typer.Context, names: Iterable[str], reason: str) -> None:
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{name.replace('_', '-')} {reason}; leave it out")


def _adapters(
    given: dict[str, Any], out: Path | None, json_: bool, quiet: bool, command: str
) -> None:
    from lorascope.studies.compare.study import CompareSettings, in_compared

    settings = CompareSettings.parse(given, "compare")
    in_compared(settings.first, settings.second)
    from lorascope.printing import Console
    from lorascope.progress import Reporter
    from lorascope.studies.compare.workflow import compare as run_comparison

    found = run_comparison(settings, out, Reporter(quiet or json_), command)
    if json_:
        say_json(_plain(found))
        return
    _print(found, Console())
    say(str(found.report))


def _models(runs: list[Path], out: Path | None, json_: bool, command: str) -> None:
    from lorascope.studies.adapt.finished import in_studies

    in_studies(runs)
    from lorascope.printing import Console
    from lorascope.report.result import read_results
    from lorascope.studies.adapt.model_comparison import compare_models
    from lorascope.studies.adapt.sections.model_comparison import ModelNumbers, sentences

    found = compare_models(runs, out, command)
    if json_:
        records = _tables(found.estimates)
        plain = {**found.facts, **records, "report": str(found.report)}
        say_json(plain)
        return
    console = Console()
    for line in sentences(ModelNumbers(read_results(found.report.parent.parent))):
        console.print(line, markup=False)
    for line in found.facts["warnings"]:
        say(f"lorascope: warning: {line}", err=True)
    say(str(found.report))


def _evaluations(runs: list[str], out: Path | None, json_: bool, command: str) -> None:
    from lorascope.studies.evaluate.finished import in_evaluations

    in_evaluations(runs[0], runs[1])
    from lorascope.printing import Console
    from lorascope.report.result import read_results
    from lorascope.studies.evaluate.comparison import compare_evaluations
    from lorascope.studies.evaluate.comparison_page import (
        COLUMNS,
        compared_cells,
        compared_label,
        compared_sentences,
        headlines,
    )

    found = compare_evaluations(runs[0], runs[1], out, command)
    if json_:
        say_json({**found.facts, **_tables(found.estimates), "report": str(found.report)})
        return
    results = read_results(found.report.parent.parent)
    chosen = headlines(results)
    rows = [compared_cells(one, results.facts["sides"][str(one.key)]) for one in chosen]
    columns = [
        Column("number", [compared_label(one, results.facts) for one in chosen], 0, wraps=True)
    ]
    columns += [
        Column(
            heading,
            [f"{row[place].text} {row[place].under}".strip() for row in rows],
            rank,
            wraps=heading == "Paired by",
        )
        for place, (heading, rank) in enumerate(zip(COLUMNS, (2, 3, 0, 5, 4, 1), strict=True))
    ]
    say_table(columns, Console(), "two evaluations on the same units")
    say(compared_sentences(results)[0])
    for line in found.facts["warnings"]:
        say(f"lorascope: warning: {line}", err=True)
    say(str(found.report))


def _plain(found: Comparison) -> dict[str, Any]:
    tables = {
        "only_here": found.latents[found.latents["only_here"].astype(bool)],
        "texts": found.texts,
    }
    # Through pandas: it writes nan as null.
    records = {name: json_records(table) for name, table in tables.items()}
    return {**found.facts, **_tables(found.estimates), **records, "report": str(found.report)}


def _tables(estimates: Iterable[Estimate]) -> dict[str, Any]:
    from lorascope.results import Estimates

    every = Estimates(estimates)
    tables = {"estimates": every.to_frame(), "chance_levels": every.nulls_frame()}
    return {name: json_records(table) for name, table in tables.items()}


def json_records(table: Any) -> Any:
    """A table's rows as plain data, nan as null."""
    import json

    return json.loads(table.to_json(orient="records"))


def _print(found: Comparison, console: Any) -> None:
    from lorascope.studies.compare.page import HEADLINES, number_rows

    chosen = [e for e in found.estimates if e.measure in HEADLINES]
    several = len({e.key.seed for e in chosen if e.key.seed is not None}) > 1
    rows = number_rows(chosen)

    def of(row: Any) -> str:
        seed = f"seed {row.seed}" if several and row.seed != "" else ""
        parts = (row.adapter, row.site, row.dictionary, row.setting, seed)
        return ", ".join(part for part in parts if part)

    columns = [
        Column("number", [row.title for row in rows], 0, wraps=True),
        Column("of", [of(row) for row in rows], 1, wraps=True),
        Column("value", [row.value for row in rows], 2),
        Column("95 % interval", [row.interval for row in rows], 5),
        Column("chance", [row.chance for row in rows], 3),
        Column("verdict", [f"{row.symbol} {row.verdict}" for row in rows], 4, wraps=True),
    ]
    say_table(columns, console, "two adapters on the same tokens")
    _print_latents(found, console)
    for line in found.facts["warnings"]:
        say(f"lorascope: warning: {line}", err=True)


def _print_latents(found: Comparison, console: Any) -> None:
    from rich.text import Text

    from lorascope.report.formatting import number
    from lorascope.studies.compare.page import sentences

    listed = found.latents[found.latents["only_here"].astype(bool)]
    for line in sentences((), found.latents, found.facts):
        console.print(Text(line), soft_wrap=not console.is_terminal)
    if not len(listed):
        return
    contexts = found.texts[(found.texts["kind"] == "latent") & (found.texts["rank"] == 1)]
    keys = ["adapter", "site", "seed", "latent"]
    shown = listed.merge(contexts[[*keys, "before", "token", "after"]], on=keys).head(12)
    rows: list[dict[Any, Any]] = shown.to_dict("records")

    def numbers(heading: str, name: str, rank: int) -> Column:
        return Column(heading, [number(row[name]) for row in rows], rank)

    columns = [
        Column("of", [f"{row['adapter']} {row['site']}" for row in rows], 1, wraps=True),
        Column("latent", [str(row["latent"]) for row in rows], 0),
        numbers("density", "density", 4),
        numbers("on the other", "density_other", 5),
        numbers("excess", "excess", 3),
        Column("strongest context", list(map(_context, rows)), 2, wraps=True),
    ]
    say_table(columns, console, "active in one only")


def _context(row: dict[Any, Any]) -> str:
    """The token between marks, with some of the text on either side."""
    before, after = (" ".join(row[side].split()) for side in ("before", "after"))
    return f"{before[-40:]} ›{row['token'].strip()}‹ {after[:20]}".strip()
