"""What a study costs, printed: for `lorascope plan`, and for any workflow's own command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.studies.adapt.plan import AdaptPlan
    from lorascope.studies.adapt.study import AdaptStudy
    from lorascope.studies.audit.plan import Plan
    from lorascope.studies.audit.study import AuditStudy
    from lorascope.studies.latent.plan import LatentPlan
    from lorascope.studies.latent.study import LatentStudy


def print_plan(study: AuditStudy | AdaptStudy | LatentStudy, out: Path) -> None:
    """Check a study and print what it takes, without loading weights.

    Args:
        out: where the run would go.

    Raises:
        InputError: the study is wrong, or cannot fit on this machine.
    """
    from lorascope.studies import missing

    missing.in_study(study, planned=True)
    from rich.table import Table

    from lorascope.printing import Console
    from lorascope.workflows.cost import refuse_what_cannot_fit

    cost = _cost(study)
    table = Table(show_header=False, box=None)
    for what, much in cost.lines():
        table.add_row(what, much)
    Console().print(table)
    refuse_what_cannot_fit(cost, out)


def print_plan_of_run(study: AuditStudy | AdaptStudy | LatentStudy, out: Path, redo: bool) -> None:
    """As `print_plan`, once the run folder is known to be this study's to use."""
    from lorascope.studies import missing

    missing.in_folder(out, study, redo)
    print_plan(study, out)


def _cost(study: AuditStudy | AdaptStudy | LatentStudy) -> Plan | AdaptPlan | LatentPlan:
    from lorascope.studies.adapt.study import AdaptStudy
    from lorascope.studies.latent.study import LatentStudy

    if isinstance(study, AdaptStudy):
        from lorascope.studies.adapt.plan import plan_adapt

        return plan_adapt(study)
    if isinstance(study, LatentStudy):
        from lorascope.studies.latent.plan import plan_latent

        return plan_latent(study)
    from lorascope.studies.audit.plan import plan

    return plan(study)
