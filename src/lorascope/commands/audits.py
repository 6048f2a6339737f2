"""Audits: what adapters add to the residual stream."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.options import (
    Adapter,
    BaseDictionary,
    DTypeOf,
    Json,
    Out,
    PlanOnly,
    Quiet,
    Ray,
    Revision,
    Set,
    StagePlace,
    Threads,
    Workers,
    audit_study,
    of_base,
)
from lorascope.commands.planning import print_plan_of_run
from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.studies.audit.study import AuditStudy

_Model = Annotated[
    str | None,
    typer.Option(
        help="Base model: hub id, folder or GGUF file; the one the adapter names by default."
    ),
]
_Sites = Annotated[
    str | None,
    typer.Option(help="Comma-separated, layers.5 = output of block 5; three depths by default."),
]


def audit(
    study: Annotated[
        Path | None, typer.Argument(help="Study file, or an adapter's folder.")
    ] = None,
    model: _Model = None,
    adapter: Adapter = None,
    sites: _Sites = None,
    texts: Annotated[
        list[str] | None, typer.Option(help="File, folder or dataset id. Repeatable.")
    ] = None,
    dictionary: BaseDictionary = None,
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    out: Out = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept files that name another base model.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Settings have changed: redo what depends on them.")
    ] = False,
    workers: Workers = 1,
    threads: Threads = None,
    ray: Ray = None,
    plan: PlanOnly = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Audit adapters: what they add to the residual stream, beside chance.

    **Examples**

    `lorascope audit ./my-lora`

    `lorascope audit --model google/gemma-2-2b --adapter mine=me/my-lora --sites layers.5,layers.18
    --texts alpaca.json --out runs/mine`

    `lorascope audit studies/embedded.yaml --set seed=1`

    `lorascope audit studies/embedded.yaml --workers 4`

    `lorascope audit studies/embedded.yaml --out runs/mine --json > verdicts.json`

    `lorascope audit studies/embedded.yaml --set seed=1 --plan`
    """
    if plan and json_:
        raise InputError("give either --plan or --json, not both")
    changes = of_base(set_, dtype, revision)
    settings = audit_study(study, model, adapter, sites, texts, dictionary, changes, force)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    if plan:
        print_plan_of_run(settings, folder, redo)
        return
    run_audit(settings, folder, quiet, json_, redo, StagePlace(workers, threads, ray))


def run_audit(
    study: AuditStudy,
    out: Path,
    quiet: bool,
    json_: bool,
    redo: bool = False,
    place: StagePlace | None = None,
) -> None:
    """Run it, then print the verdicts as a table or as JSON, and the report's path."""
    from lorascope.studies import missing

    missing.in_study(study)
    missing.in_folder(out, study, redo)
    from lorascope.printing import Console
    from lorascope.progress import Reporter
    from lorascope.studies.audit.sections.terminal import summary, summary_data
    from lorascope.studies.audit.workflow import audit as run

    command = shlex.join(["lorascope", *sys.argv[1:]])
    path = run(
        study, out, Reporter(quiet or json_), command, redo, (place or StagePlace()).runner()
    )
    if json_:
        say_json(summary_data(out, path))
        return
    if not quiet:
        Console().print(summary(out))
    say(str(path))
