"""Adapting: fit a model around its frozen dictionaries."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import (
    DTypeOf,
    Out,
    PlanOnly,
    Quiet,
    Ray,
    Revision,
    Set,
    StagePlace,
    Threads,
    Workers,
    of_base,
    pairs,
    require_workflow,
)
from lorascope.commands.planning import print_plan_of_run
from lorascope.errors import InputError
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.studies.adapt.study import AdaptStudy

_REQUIRED = {"--model": "model", "--dictionary": "dictionaries", "--texts": "texts"}


def adapt(
    study: Annotated[Path | None, typer.Argument(help="Study file; or use the options.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model: hub id, folder or GGUF file.")
    ] = None,
    dictionary: Annotated[
        list[str] | None,
        typer.Option("--dictionary", help="Dictionary to fit around: site=address. Repeatable."),
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option(help="File, folder or dataset id. Repeatable.")
    ] = None,
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    out: Out = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept files that name another model or site.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Settings have changed: redo what depends on them.")
    ] = False,
    workers: Workers = 1,
    threads: Threads = None,
    ray: Ray = None,
    plan: PlanOnly = False,
    quiet: Quiet = False,
) -> None:
    """Fit low-rank adapters around frozen dictionaries, beside what else could be done.

    **Examples**

    `lorascope adapt studies/adapt_embedded.yaml`

    `lorascope adapt studies/adapt_embedded.yaml --workers 4`

    `lorascope adapt --model google/gemma-2-2b
    --dictionary layers.12=hf://google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82
    --texts texts.jsonl --set fit.tokens=2000000 --out runs/around`
    """
    settings = adapt_study(study, model, dictionary, texts, of_base(set_, dtype, revision), force)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    if plan:
        print_plan_of_run(settings, folder, redo)
        return
    run_adapt(settings, folder, quiet, redo, StagePlace(workers, threads, ray))


def run_adapt(
    study: AdaptStudy, out: Path, quiet: bool, redo: bool = False, place: StagePlace | None = None
) -> None:
    """Run a study and print where its report is."""
    from lorascope.studies import missing

    missing.in_study(study)
    missing.in_folder(out, study, redo)
    from lorascope.progress import Reporter
    from lorascope.studies.adapt.workflow import adapt as run

    command = shlex.join(["lorascope", *sys.argv[1:]])
    say(str(run(study, out, Reporter(quiet), command, redo, (place or StagePlace()).runner())))


def adapt_study(
    study: Path | None,
    model: str | None,
    dictionaries: Sequence[str] | None,
    texts: Sequence[str] | None,
    changes: Sequence[str] | None,
    force: bool,
) -> AdaptStudy:
    """The study that a file and options say together; options win."""
    from lorascope.config import override, read_yaml
    from lorascope.studies.adapt.study import AdaptStudy

    require_workflow(study, "adapt")
    data: dict[str, Any] = read_yaml(study) if study is not None else {}
    if model is not None:
        data["model"] = model
    if dictionaries:
        brought = pairs("--dictionary", dictionaries, "layers.5=runs/mine")
        named = {site: {"site": site, "address": address} for site, address in brought.items()}
        data["dictionaries"] = {"bring": named}
    if texts:
        before = data.get("texts")
        kept = before if isinstance(before, dict) else {}
        data["texts"] = {**kept, "sources": list(texts)}
    if force:
        data["force"] = True
    if study is None:
        missing = [option for option, key in _REQUIRED.items() if key not in data]
        if missing:
            raise InputError(f"give a study file, or the options {', '.join(missing)}")
    return AdaptStudy.parse(override(data, changes or []), str(study or "options"))
