"""What a study costs, printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.studies.study_files import Study
    from lorascope.workflows.cost import Cost


def print_plan(
    study: Study,
    out: Path,
    device: str | None = None,
    memory: float | None = None,
    json_: bool = False,
) -> None:
    """Check a study and print what it takes, without loading weights.

    What does not fit is a warning, with the setting that lowers the largest part.

    Args:
        out: where the run would go.
        device: a machine of the table in `workflows.machines`; this one by default.
        memory: gigabytes there are, in place of the machine's.
        json_: as plain data, warnings too.

    Raises:
        InputError: the study is wrong, or there is no such machine.
    """
    from lorascope.studies import missing

    missing.in_study(study, planned=True)
    from dataclasses import replace

    from lorascope.workflows.cost import what_does_not_fit
    from lorascope.workflows.machines import machine_named

    machine = None if device is None else machine_named(device)
    from lorascope.studies.opening import workflow_of

    cost = replace(workflow_of(study).plan(study), machine=machine)
    lacking = what_does_not_fit(cost, out, None if memory is None else int(memory * 1e9))
    say_cost(cost, (*cost.cautions, *lacking), json_)


def say_cost(cost: Cost, warnings: Sequence[str], json_: bool) -> None:
    """Print a cost as a table, or as plain data, and what to beware of."""
    from rich.table import Table

    from lorascope.printing import Console, say, say_json

    if json_:
        say_json({**cost.plain(), "warnings": list(warnings)})
        return
    table = Table(show_header=False, box=None)
    for what, much in cost.lines():
        table.add_row(what, much)
    Console().print(table)
    for line in warnings:
        say(f"lorascope: warning: {line}", err=True)
