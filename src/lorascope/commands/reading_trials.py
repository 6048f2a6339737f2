"""`lorascope selftest --read`: readings of adapters whose lesson is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from lorascope.reading.settings import Reading
    from lorascope.selftest.adapter_tables import AdapterTable
    from lorascope.selftest.reading_trial import Trial


@dataclass(frozen=True)
class AskedTrial:
    """What was asked of a trial of readings, as the options of these names.

    Attributes:
        model, table: of the user's own adapters; None for those the package makes, or a preset.
    """

    read: bool = False
    full: bool = False
    quick: bool = False
    json_: bool = False
    plan: bool = False
    model: str | None = None
    table: str | None = None
    preset: str | None = None
    most: int | None = None
    nulls: int | None = None
    keep: Path | None = None
    seed: int = 0
    dtype: str = "auto"

    @property
    def any(self) -> bool:
        """Whether an option was given that a trial alone has."""
        return self.read or self.plan or any(value is not None for _, value in self._own())

    def _own(self) -> tuple[tuple[str, Any], ...]:
        names = ("model", "table", "preset", "most", "nulls", "keep")
        return tuple((f"--{name}", getattr(self, name)) for name in names)

    def check(self) -> None:
        """Refuse options that do not belong together."""
        if not self.read:
            given = [option for option, value in self._own() if value is not None]
            raise InputError(f"{[*given, '--plan'][0]} goes with --read; give that too")
        if self.full:
            raise InputError("--full is of the other self-test; leave it out, or --read")
        if self.preset is not None and self.table is not None:
            raise InputError("--preset names a table: give it or --table, not both")
        if self.table is not None and self.model is None:
            raise InputError("--table needs --model, the base of its adapters")
        if self.model is not None and self.table is None and self.preset is None:
            raise InputError("--model needs --table, the adapters of that base")
        for option in ("most", "nulls"):
            if getattr(self, option) is not None and not self.has_table:
                raise InputError(f"--{option} goes with --table or --preset; give one of them")
        if self.plan and not self.has_table:
            raise InputError("--plan goes with --table or --preset; give one of them")

    @property
    def has_table(self) -> bool:
        """Whether the adapters are those of a table."""
        return self.table is not None or self.preset is not None


def run_trial(asked: AskedTrial, quiet: bool) -> None:
    """Try readings on adapters whose lesson is known, or plan it; exit code 1 where it fails."""
    from lorascope.models.places import model_address
    from lorascope.studies.missing import in_output

    asked.check()
    # Before any large library: what is wrong in the table is said at once.
    base, table = _table_of(asked)
    model_address(base)
    in_output(asked.keep)
    import tempfile
    from contextlib import nullcontext
    from dataclasses import replace

    from lorascope.progress import Reporter
    from lorascope.selftest.reading_trial import QUICK, TrialSizes, reading_trial, table_trial

    sizes = QUICK if asked.quick else TrialSizes()
    sizes = replace(sizes, reading=sizes.reading.model_copy(update={"seed": asked.seed}))
    if asked.plan and table is not None:
        _print_plan(base, table, sizes.reading, asked)
        return
    reporter = Reporter(quiet or asked.json_)
    fresh = tempfile.TemporaryDirectory(prefix="lorascope-")
    with nullcontext(str(asked.keep)) if asked.keep else fresh as folder:
        if table is not None:
            found = table_trial(base, table, sizes.reading, Path(folder), reporter, asked.nulls)
        else:
            found = reading_trial(sizes, Path(folder), reporter)
    _print(found, asked.json_)


def _table_of(asked: AskedTrial) -> tuple[str, AdapterTable | None]:
    """The base and the adapters asked for; no table where the package makes its own."""
    if not asked.has_table:
        return "embedded", None
    from lorascope.selftest.adapter_tables import read_table
    from lorascope.selftest.presets import preset

    base, address = asked.model or "", asked.table or ""
    if asked.preset is not None:
        known = preset(asked.preset)
        base, address = asked.model or known.model, known.table
    return base, read_table(address).some(asked.most, asked.seed)


def _print_plan(base: str, table: AdapterTable, settings: Reading, asked: AskedTrial) -> None:
    from lorascope.commands.planning import say_cost
    from lorascope.selftest.trial_plan import plan_table
    from lorascope.workflows.cost import what_does_not_fit

    cost = plan_table(base, table, settings, asked.nulls, asked.dtype)
    say_cost(cost, what_does_not_fit(cost, asked.keep or Path()), asked.json_)


def _print(found: Trial, json_: bool) -> None:
    from lorascope.printing import Console

    if json_:
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
    from lorascope.commands.tables import empty_table
    from lorascope.report.formatting import interval, number

    columns = ("method", "right label", "chance", "ROC area", "at 5 %", "at 1 %")
    table = empty_table("readings of taught and untaught adapters", *columns, words=len(columns))
    for row in found.rows:
        low, high = row.right_interval
        table.add_row(
            *(row.method, f"{row.right}/{row.taught} [{low:.0%}, {high:.0%}]"),
            *(f"{row.chance:.1%}", f"{number(row.area)} {interval(*row.area_interval)}"),
            *(f"{row.at_5}/{row.taught}", f"{row.at_1}/{row.taught}"),
        )
    return table
