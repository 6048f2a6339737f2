"""What a study costs, printed: for `lorascope plan`, and for any workflow's own command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.studies.adapt.plan import AdaptPlan
    from lorascope.studies.adapt.study import AdaptStudy
    from lorascope.studies.audit.plan import Plan
    from lorascope.studies.audit.study import AuditStudy
    from lorascope.studies.evaluate.plan import EvaluatePlan
    from lorascope.studies.evaluate.settings import EvaluateStudy
    from lorascope.studies.latent.plan import LatentPlan
    from lorascope.studies.latent.study import LatentStudy


def print_plan(
    study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy,
    out: Path,
    device: str | None = None,
    memory: float | None = None,
) -> None:
    """Check a study and print what it takes, without loading weights.

    What does not fit is a warning, with the setting that lowers the largest part.

    Args:
        out: where the run would go.
        device: a machine of the table in `workflows.machines`; this one by default.
        memory: gigabytes there are, in place of the machine's.

    Raises:
        InputError: the study is wrong, or there is no such machine.
    """
    from lorascope.studies import missing

    missing.in_study(study, planned=True)
    from dataclasses import replace

    from rich.table import Table

    from lorascope.printing import Console, say
    from lorascope.workflows.cost import what_does_not_fit
    from lorascope.workflows.machines import machine_named

    machine = None if device is None else machine_named(device)
    cost = replace(_cost(study), machine=machine)
    table = Table(show_header=False, box=None)
    for what, much in cost.lines():
        table.add_row(what, much)
    Console().print(table)
    for line in what_does_not_fit(cost, out, None if memory is None else int(memory * 1e9)):
        say(f"lorascope: warning: {line}", err=True)


def print_plan_of_run(
    study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy, out: Path, redo: bool
) -> None:
    """As `print_plan`, once the run folder is known to be this study's to use."""
    from lorascope.studies import missing

    missing.in_folder(out, study, redo)
    print_plan(study, out)


def _cost(
    study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy,
) -> Plan | AdaptPlan | LatentPlan | EvaluatePlan:
    from lorascope.studies.adapt.study import AdaptStudy
    from lorascope.studies.evaluate.settings import EvaluateStudy
    from lorascope.studies.latent.study import LatentStudy

    if isinstance(study, AdaptStudy):
        from lorascope.studies.adapt.plan import plan_adapt

        return plan_adapt(study)
    if isinstance(study, LatentStudy):
        from lorascope.studies.latent.plan import plan_latent

        return plan_latent(study)
    if isinstance(study, EvaluateStudy):
        from lorascope.studies.evaluate.plan import plan_evaluate

        return plan_evaluate(study)
    from lorascope.studies.audit.plan import plan

    return plan(study)
