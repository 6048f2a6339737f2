"""The command that tests the instrument on data whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.options import DTypeOf, Quiet, known_dtype
from lorascope.commands.reading_trials import AskedTrial, run_trial
from lorascope.commands.tables import empty_table
from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from lorascope.selftest.selftest import Selftest

_INTERVAL = "95 % interval"

_Readings = Annotated[
    bool, typer.Option("--read", help="Try readings instead: taught and untaught adapters.")
]
_Model = Annotated[str | None, typer.Option(help="With --read: base of the adapters of a table.")]
_Adapters = Annotated[
    str | None, typer.Option(help="With --read: CSV of adapters, with adapter and label.")
]
_Preset = Annotated[
    str | None, typer.Option(help="With --read: a public set of adapters, such as organisms-….")
]
_Most = Annotated[
    int | None, typer.Option("--most", min=2, help="So many of a table's adapters, drawn.")
]
_Nulls = Annotated[
    int | None, typer.Option("--nulls", min=0, help="Random updates read beside a table's.")
]
_Plan = Annotated[bool, typer.Option("--plan", help="Only print what reading a table costs.")]
_Keep = Annotated[
    Path | None, typer.Option(help="With --read: folder to keep adapters and readings in.")
]


def selftest(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats, a smaller audit.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="30 null adapters of three ranks: a quarter of an hour.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Plain JSON instead of tables.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    read: _Readings = False,
    model: _Model = None,
    table: _Adapters = None,
    preset: _Preset = None,
    most: _Most = None,
    nulls: _Nulls = None,
    plan: _Plan = False,
    dtype: DTypeOf = None,
    keep: _Keep = None,
    quiet: Quiet = False,
) -> None:
    """Try the measures on planted truth and on nothing; exit code 1 if one fails.

    Shares planted in made activations and what is found of them; how often each measure finds
    something where nothing is planted; an adapter built by hand that writes one direction on one
    class of tokens, found, named and taken away again; null adapters and featureless dictionaries
    through a real audit; coverage of every kind of interval; power; two adapters that do the same.
    Bars are held by binomial tests at 2.5 % one-sided.

    **Examples**

    `lorascope selftest`

    `lorascope selftest --quick --json`

    `lorascope selftest --read --keep runs/auditing`

    `lorascope selftest --read --model google/gemma-3-1b-it --table adapters.csv`

    `lorascope selftest --read --preset auditbench-qwen3-14b --most 16 --plan`
    """

    if quick and full:
        raise InputError("give either --quick or --full, not both")
    own = (model, table, preset, most, nulls, keep)
    asked = AskedTrial(read, full, quick, json_, plan, *own, seed, known_dtype(dtype))
    if asked.any:
        run_trial(asked, quiet)
        return
    _try_measures(quick, full, json_, seed, quiet)


def _try_measures(quick: bool, full: bool, json_: bool, seed: int, quiet: bool) -> None:
    from lorascope.printing import Console
    from lorascope.progress import Reporter
    from lorascope.selftest.selftest import FULL, QUICK, STANDARD
    from lorascope.selftest.selftest import selftest as run

    sizes = QUICK if quick else FULL if full else STANDARD
    found = run(sizes, Reporter(quiet or json_), seed)
    if json_:
        say_json(found.plain())
    else:
        for printed in _tables(found):
            Console().print(printed)
        say(f"{'passed' if not found.failures else 'failed'} in {found.seconds:.0f} s")
    for line in found.failures:
        say(f"lorascope: failed: {line}", err=True)
    if found.failures:
        raise typer.Exit(1)


def _tables(found: Selftest) -> list[Table]:
    from lorascope.report.formatting import interval, number

    recovery = empty_table(
        "planted and found",
        *("quantity", "measure", "base", "planted", "found", _INTERVAL, ""),
        words=3,
    )
    for row in found.recovery:
        values = number(row.planted), number(row.value), interval(*row.interval)
        mark = "" if row.recovered else "missed"
        recovery.add_row(row.quantity, row.measure, row.against, *values, mark)
    rates = empty_table(
        "nothing planted: false positives",
        "measure",
        "null",
        "found",
        "rate",
        _INTERVAL,
        "",
        words=2,
    )
    for rate in found.rates:
        counts = f"{rate.found}/{rate.repeats}", f"{rate.rate:.1%}"
        low, high = rate.interval
        mark = "" if rate.passed else "too many"
        rates.add_row(rate.measure, rate.null, *counts, f"[{low:.1%}, {high:.1%}]", mark)
    adapter = empty_table("an adapter built by hand", "", "found", _INTERVAL)
    for words, value, bounds in found.detected.rows():
        adapter.add_row(words, number(value), interval(*bounds))
    names = ", ".join(found.detected.named)
    adapter.add_row(f"its strongest tokens: {names}", "", "")
    return [recovery, rates, adapter, *_counted(found)]


def _counted(found: Selftest) -> list[Table]:
    """Coverage, and everything else that is counted beside a bar."""
    coverage = empty_table(
        "coverage of 95 % intervals",
        *("kind", "unit", "n", "seeds", "held", "share", ""),
        words=2,
    )
    for row in found.coverage:
        seeds = "" if row.seeds is None else str(row.seeds)
        held = str(row.n), seeds, f"{row.covered}/{row.trials}", f"{row.share:.1%}"
        coverage.add_row(row.kind, row.unit, *held, "" if row.passed else "missed")
    shares = empty_table(
        "counted beside a bar", *("part", "what", "found", "share", _INTERVAL, "bar", ""), words=2
    )
    for share in found.shares:
        low, high = share.interval
        bar = "" if share.bar is None else f"{'≤' if share.most else '≥'} {share.bar:.0%}"
        counts = f"{share.found}/{share.trials}", f"{share.share:.1%}"
        mark = "" if share.passed else "missed"
        shares.add_row(share.part, share.what, *counts, f"[{low:.1%}, {high:.1%}]", bar, mark)
    return [coverage, shares]
