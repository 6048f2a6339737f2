"""Audits: run one, plan one, make its report again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.options import Adapter, BaseDictionary, Json, Out, Quiet, Set, audit_study
from lorascope.errors import InputError

if TYPE_CHECKING:
    from lorascope.workflows.study import AuditStudy


def demo(
    workflow: Annotated[str, typer.Argument(help="Which workflow: audit.")] = "audit",
    quick: Annotated[bool, typer.Option("--quick", help="Two ranks, two sites: ≈ 100 s.")] = False,
    out: Out = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a whole workflow on the model inside the package: no network, no GPU.

    **Examples**

    `lorascope demo`

    `lorascope demo --quick --out /tmp/quick`
    """
    if workflow != "audit":
        raise InputError(f'there is no demo "{workflow}"; there is: audit')
    from lorascope.workflows.demo import demo_study

    study = demo_study(quick)
    _audit(study, out or Path("runs") / study.name, quiet, json_)


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
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Audit adapters: what they add to the residual stream, beside chance.

    **Examples**

    `lorascope audit --model google/gemma-2-2b --adapter mine=me/my-lora --sites layers.5,layers.18
    --texts alpaca.json --out runs/mine`

    `lorascope audit studies/embedded.yaml --set seed=1`

    `lorascope audit studies/embedded.yaml --dictionary layers.5=hf://me/my-saes/layers.5`

    `lorascope audit studies/embedded.yaml --out runs/mine --json > verdicts.json`
    """
    settings = audit_study(study, model, adapter, sites, texts, dictionary, set_, force)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    _audit(settings, folder, quiet, json_, redo)


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

    `lorascope plan --model google/gemma-2-2b --adapter mine=me/my-lora --sites 5 --texts a.jsonl`
    """
    from rich.console import Console
    from rich.table import Table

    from lorascope.workflows.plan import plan as cost_of
    from lorascope.workflows.plan import refuse_what_cannot_fit

    settings = audit_study(study, model, adapter, sites, texts, dictionary, set_, False)
    cost = cost_of(settings)
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


def _audit(study: AuditStudy, out: Path, quiet: bool, json_: bool, redo: bool = False) -> None:
    """Run it, then print the verdicts as a table or as JSON, and the report's path."""
    import json

    from rich.console import Console

    from lorascope.report.terminal import summary, summary_data
    from lorascope.workflows.audit import audit as run_audit
    from lorascope.workflows.progress import Reporter

    command = shlex.join(["lorascope", *sys.argv[1:]])
    path = run_audit(study, out, Reporter(quiet or json_), command, redo)
    if json_:
        typer.echo(json.dumps(summary_data(out, path), indent=1, ensure_ascii=False))
        return
    if not quiet:
        Console().print(summary(out))
    typer.echo(str(path))
