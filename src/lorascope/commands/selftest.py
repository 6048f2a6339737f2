"""The command that tests the instrument on data whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorascope.commands.options import Quiet
from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from lorascope.selftest.reading_trial import Trial
    from lorascope.selftest.selftest import Selftest

_INTERVAL = "95 % interval"

_Readings = Annotated[
    bool, typer.Option("--read", help="Try readings instead: taught and untaught adapters.")
]
_Model = Annotated[str | None, typer.Option(help="With --read: base of the adapters of a table.")]
_Adapters = Annotated[
    Path | None, typer.Option(help="With --read: CSV of adapters, with adapter and label.")
]
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
    """

    if quick and full:
        raise InputError("give either --quick or --full, not both")
    if read or model or table or keep:
        _read(_Trial(read, full, quick, json_, model, table, keep, seed), quiet)
        return
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


@dataclass(frozen=True)
class _Trial:
    """What was asked of a trial of readings."""

    read: bool
    full: bool
    quick: bool
    json_: bool
    model: str | None
    table: Path | None
    keep: Path | None
    seed: int

    def check(self) -> None:
        """Refuse options that do not belong together."""
        if not self.read:
            given = (("--model", self.model), ("--table", self.table), ("--keep", self.keep))
            named = next(option for option, value in given if value is not None)
            raise InputError(f"{named} goes with --read; give that too")
        if self.full:
            raise InputError("--full is of the other self-test; leave it out, or --read")
        if (self.model is None) != (self.table is None):
            raise InputError("--model and --table belong together: give both, or neither")


def _read(asked: _Trial, quiet: bool) -> None:
    """Try readings on adapters whose lesson is known."""
    asked.check()
    import tempfile
    from contextlib import nullcontext
    from dataclasses import replace

    from lorascope.printing import Console
    from lorascope.progress import Reporter
    from lorascope.selftest.reading_trial import QUICK, TrialSizes, reading_trial, table_trial

    sizes = QUICK if asked.quick else TrialSizes()
    sizes = replace(sizes, reading=sizes.reading.model_copy(update={"seed": asked.seed}))
    reporter = Reporter(quiet or asked.json_)
    fresh = tempfile.TemporaryDirectory(prefix="lorascope-")
    kept = nullcontext(str(asked.keep)) if asked.keep else fresh
    with kept as folder:
        if asked.model is not None and asked.table is not None:
            found = table_trial(asked.model, asked.table, sizes.reading, Path(folder), reporter)
        else:
            found = reading_trial(sizes, Path(folder), reporter)
    if asked.json_:
        say_json(found.plain())
    else:
        Console().print(_methods(found))
        for kind, (named, count) in found.kinds.items():
            say(f"{kind}: {named} of {count} readings name something")
        say(f"{'passed' if not found.failures else 'failed'} in {found.seconds:.0f} s")
    for line in found.failures:
        say(f"lorascope: failed: {line}", err=True)
    if found.failures:
        raise typer.Exit(1)


def _methods(found: Trial) -> Table:
    from lorascope.report.formatting import interval, number

    columns = ("method", "right label", "chance", "ROC area", "at 5 %", "at 1 %")
    table = _table("readings of taught and untaught adapters", *columns, words=len(columns))
    for row in found.rows:
        low, high = row.right_interval
        table.add_row(
            *(row.method, f"{row.right}/{row.taught} [{low:.0%}, {high:.0%}]"),
            *(f"{row.chance:.1%}", f"{number(row.area)} {interval(*row.area_interval)}"),
            *(f"{row.at_5}/{row.taught}", f"{row.at_1}/{row.taught}"),
        )
    return table


def _table(title: str, *columns: str, words: int = 1) -> Table:
    """An empty table whose first `words` columns are text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if number < words else "right"
        table.add_column(column, justify=justify, no_wrap=number >= words or column == "measure")
    return table


def _tables(found: Selftest) -> list[Table]:
    from lorascope.report.formatting import interval, number

    recovery = _table(
        "planted and found",
        *("quantity", "measure", "base", "planted", "found", _INTERVAL, ""),
        words=3,
    )
    for row in found.recovery:
        values = number(row.planted), number(row.value), interval(*row.interval)
        mark = "" if row.recovered else "missed"
        recovery.add_row(row.quantity, row.measure, row.against, *values, mark)
    rates = _table(
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
    adapter = _table("an adapter built by hand", "", "found", _INTERVAL)
    for words, value, bounds in found.detected.rows():
        adapter.add_row(words, number(value), interval(*bounds))
    names = ", ".join(found.detected.named)
    adapter.add_row(f"its strongest tokens: {names}", "", "")
    return [recovery, rates, adapter, *_counted(found)]


def _counted(found: Selftest) -> list[Table]:
    """Coverage, and everything else that is counted beside a bar."""
    coverage = _table(
        "coverage of 95 % intervals",
        *("kind", "unit", "n", "seeds", "held", "share", ""),
        words=2,
    )
    for row in found.coverage:
        seeds = "" if row.seeds is None else str(row.seeds)
        held = str(row.n), seeds, f"{row.covered}/{row.trials}", f"{row.share:.1%}"
        coverage.add_row(row.kind, row.unit, *held, "" if row.passed else "missed")
    shares = _table(
        "counted beside a bar", *("part", "what", "found", "share", _INTERVAL, "bar", ""), words=2
    )
    for share in found.shares:
        low, high = share.interval
        bar = "" if share.bar is None else f"{'≤' if share.most else '≥'} {share.bar:.0%}"
        counts = f"{share.found}/{share.trials}", f"{share.share:.1%}"
        mark = "" if share.passed else "missed"
        shares.add_row(share.part, share.what, *counts, f"[{low:.1%}, {high:.1%}]", bar, mark)
    return [coverage, shares]
