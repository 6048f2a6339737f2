"""What a study costs, printed: for `lorascope plan`, and for any workflow's own command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.evaluating.plan import EvaluatePlan
    from lorascope.evaluating.settings import EvaluateStudy
    from lorascope.workflows.adapt.plan import AdaptPlan
    from lorascope.workflows.adapt.study import AdaptStudy
    from lorascope.workflows.latent.plan import LatentPlan
    from lorascope.workflows.latent.study import LatentStudy
    from lorascope.workflows.plan import Plan
    from lorascope.workflows.study import AuditStudy


def print_plan(study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy, out: Path) -> None:
    """Check a study and print what it takes, without loading weights.

    Args:
        out: where the run would go.

    Raises:
        InputError: the study is wrong, or cannot fit on this machine.
    """
    from lorascope.workflows import missing

    missing.in_study(study, planned=True)
    from rich.table import Table

    from lorascope.printing import Console
    from lorascope.workflows.plan import refuse_what_cannot_fit

    cost = _cost(study)
    table = Table(show_header=False, box=None)
    for what, much in cost.lines():
        table.add_row(what, much)
    Console().print(table)
    refuse_what_cannot_fit(cost, out)


def print_plan_of_run(
    study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy, out: Path, redo: bool
) -> None:
    """As `print_plan`, once the run folder is known to be this study's to use."""
    from lorascope.workflows import missing

    missing.in_folder(out, study, redo)
    print_plan(study, out)


def _cost(
    study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy,
) -> Plan | AdaptPlan | LatentPlan | EvaluatePlan:
    from lorascope.evaluating.settings import EvaluateStudy
    from lorascope.workflows.adapt.study import AdaptStudy
    from lorascope.workflows.latent.study import LatentStudy

    if isinstance(study, AdaptStudy):
        from lorascope.workflows.adapt.plan import plan_adapt

        return plan_adapt(study)
    if isinstance(study, LatentStudy):
        from lorascope.workflows.latent.plan import plan_latent

        return plan_latent(study)
    if isinstance(study, EvaluateStudy):
        from lorascope.evaluating.plan import plan_evaluate

        return plan_evaluate(study)
    from lorascope.workflows.plan import plan

    return plan(study)
