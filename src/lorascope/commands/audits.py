"""Audits: run one; the demos; plan a study of any kind, make its report again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.adapts import adapt_study, run_adapt
from lorascope.commands.options import (
    Adapter,
    BaseDictionary,
    Out,
    Quiet,
    Set,
    audit_study,
    is_adapt,
)
from lorascope.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from lorascope.workflows.adapt.plan import AdaptPlan
    from lorascope.workflows.plan import Plan
    from lorascope.workflows.study import AuditStudy


def demo(
    workflow: Annotated[str, typer.Argument(help="Which workflow: audit, adapt.")] = "audit",
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything.")] = False,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Run a whole workflow on the model inside the package: no network, no GPU.

    **Examples**

    `lorascope demo`

    `lorascope demo --quick --out /tmp/quick`

    `lorascope demo adapt`
    """
    if workflow == "adapt":
        from lorascope.workflows.adapt.demo import adapt_demo

        around = adapt_demo(quick)
        run_adapt(around, out or Path("runs") / around.name, quiet)
        return
    if workflow != "audit":
        hint = did_you_mean(workflow, ["audit", "adapt"])
        raise InputError(f'there is no demo "{workflow}".{hint} There are: audit, adapt')
    from lorascope.workflows.demo import demo_study

    study = demo_study(quick)
    _audit(study, out or Path("runs") / study.name, quiet)


def audit(
    study: Annotated[Path | None, typer.Argument(help="Study file; or use the options.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: hub id or folder.")] = None,
    adapter: Adapter = None,
    sites: Annotated[
        str | None, typer.Option(help="Comma-separated, layers.5 = output of block 5.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option(help="File, folder or dataset id. Repeatable.")
    ] = None,
    dictionary: BaseDictionary = None,
    set_: Set = None,
    out: Out = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept files that name another base model.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Settings have changed: redo what depends on them.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Audit adapters: what they add to the residual stream, beside chance.

    **Examples**

    `lorascope audit --model google/gemma-2-2b --adapter mine=me/my-lora --sites layers.5,layers.18
    --texts alpaca.json --out runs/mine`

    `lorascope audit studies/embedded.yaml --set seed=1`

    `lorascope audit studies/embedded.yaml --dictionary layers.5=hf://me/my-saes/layers.5`
    """
    settings = audit_study(study, model, adapter, sites, texts, dictionary, set_, force)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    _audit(settings, folder, quiet, redo)


def plan(
    study: Annotated[Path | None, typer.Argument(help="Study file; or use the options.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: hub id or folder.")] = None,
    adapter: Adapter = None,
    sites: Annotated[str | None, typer.Option(help="Comma-separated sites.")] = None,
    texts: Annotated[list[str] | None, typer.Option(help="File, folder or dataset id.")] = None,
    dictionary: BaseDictionary = None,
    set_: Set = None,
    out: Annotated[Path, typer.Option("--out", help="Where the run would go.")] = Path("runs"),
) -> None:
    """Check a study and print what it costs, without loading weights.

    **Examples**

    `lorascope plan studies/embedded.yaml`

    `lorascope plan studies/adapt_embedded.yaml`

    `lorascope plan --model google/gemma-2-2b --adapter mine=me/my-lora --sites 5 --texts a.jsonl`
    """
    from rich.console import Console
    from rich.table import Table

    from lorascope.workflows.plan import refuse_what_cannot_fit

    cost: AdaptPlan | Plan
    if study is not None and is_adapt(study):
        from lorascope.workflows.adapt.plan import plan_adapt

        if adapter or sites:
            raise InputError(
                f"{study}: an adapt study has neither --adapter nor --sites; use --set"
            )
        cost = plan_adapt(adapt_study(study, model, dictionary, texts, set_, False))
    else:
        from lorascope.workflows.plan import plan as cost_of

        cost = cost_of(audit_study(study, model, adapter, sites, texts, dictionary, set_, False))
    table = Table(show_header=False, box=None)
    for what, much in cost.lines():
        table.add_row(what, much)
    Console().print(table)
    refuse_what_cannot_fit(cost, out)


def report(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
) -> None:
    """Make the report again from a run's results, without model or activations.

    **Example**

    `lorascope report runs/demo`
    """
    from lorascope.report import build

    typer.echo(str(build(run)))


def _audit(study: AuditStudy, out: Path, quiet: bool, redo: bool = False) -> None:
    from lorascope.workflows.audit import audit as run_audit
    from lorascope.workflows.progress import Reporter

    command = shlex.join(["lorascope", *sys.argv[1:]])
    path = run_audit(study, out, Reporter(quiet), command, redo)
    typer.echo(str(path))
