"""The commands of all studies: demos, the plan of a study, its report made again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.adapts import adapt_study
from lorascope.commands.audits import audit_study, print_verdicts
from lorascope.commands.evaluating import evaluate_study
from lorascope.commands.latents import latent_study
from lorascope.commands.options import (
    Adapter,
    BaseDictionary,
    DTypeOf,
    Json,
    Out,
    Quiet,
    Revision,
    Set,
    StudyFile,
    named_workflow,
    of_base,
)
from lorascope.commands.planning import print_plan
from lorascope.commands.running import StagePlace, run
from lorascope.errors import InputError, did_you_mean
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.studies.study_files import Study

_DEMOS = ("audit", "adapt", "latent")


def demo(
    workflow: Annotated[str, typer.Argument(help="audit, adapt or latent.")] = "audit",
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything.")] = False,
    out: Out = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that make stages; by default one a processor, at most four, as far as "
            "memory goes, and one for adapt, which takes times.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads of each; by default one, for adapt all."),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a whole workflow on the model inside the package: no network, no GPU.

    **Examples**

    `lorascope demo`

    `lorascope demo --quick --out /tmp/quick`

    `lorascope demo adapt`

    `lorascope demo latent`
    """
    if workflow not in _DEMOS:
        hint = did_you_mean(workflow, _DEMOS)
        raise InputError(f'there is no demo "{workflow}".{hint} There are: {", ".join(_DEMOS)}')
    if json_ and workflow != "audit":
        raise InputError(f"demo {workflow} --json: only an audit prints its verdicts as JSON")
    study = _demo_study(workflow, quick)
    place = _demo_place(workflow, workers, threads)
    page = run(study, out or Path("runs") / study.name, quiet or json_, place=place)
    if workflow == "audit":
        print_verdicts(page, quiet, json_)
    else:
        say(str(page))


def _demo_study(workflow: str, quick: bool) -> Study:
    if workflow == "audit":
        from lorascope.studies.audit.demo import demo_study

        return demo_study(quick)
    if workflow == "adapt":
        from lorascope.studies.adapt.demo import adapt_demo

        return adapt_demo(quick)
    from lorascope.studies.latent.demo import latent_demo

    return latent_demo(quick)


def _demo_place(workflow: str, workers: int | None, threads: int | None) -> StagePlace:
    """Processes of one thread each, since the embedded model gains little by more threads.

    Numbers are then the same whatever the number of processors. One that takes times has the
    machine for itself.
    """
    if workflow == "adapt":
        return StagePlace(workers or 1, threads)
    return StagePlace(workers, threads or 1)


def plan(
    study: StudyFile = None,
    model: Annotated[str | None, typer.Option(help="Base model: hub id or folder.")] = None,
    adapter: Adapter = None,
    sites: Annotated[str | None, typer.Option(help="Comma-separated sites.")] = None,
    texts: Annotated[list[str] | None, typer.Option(help="File, folder or dataset id.")] = None,
    dictionary: BaseDictionary = None,
    dtype: DTypeOf = None,
    revision: Revision = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="MACHINE",
            help="Plan for a machine one would rent: h200, h100, a100, l40s, l4, 4090, …",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option("--memory", min=0.1, help="Gigabytes there are, in place of the machine's."),
    ] = None,
    set_: Set = None,
    out: Annotated[Path, typer.Option("--out", help="Where the run would go.")] = Path("runs"),
    json_: Json = False,
) -> None:
    """Check a study of any workflow and print what it costs, without loading weights.

    **Examples**

    `lorascope plan studies/embedded.yaml`

    `lorascope plan studies/adapt_embedded.yaml`

    `lorascope plan studies/latent_embedded.yaml`

    `lorascope plan --model google/gemma-2-2b --adapter mine=me/my-lora --sites layers.5
    --texts a.jsonl`

    `lorascope plan studies/embedded.yaml --device h100`

    `lorascope plan studies/embedded.yaml --memory 16 --json`
    """
    workflow, changes = named_workflow(study), of_base(set_, dtype, revision)
    asked: Study
    if workflow == "adapt":
        _refuse_options(study, "an adapt study has neither --adapter nor --sites", adapter, sites)
        asked = adapt_study(study, model, dictionary, texts, changes, False)
    elif workflow == "latent":
        said = "a latent study is changed with --model and --set alone"
        _refuse_options(study, said, adapter, sites, texts, dictionary)
        asked = latent_study(study, {"model": model}, None, changes)
    elif workflow == "evaluate":
        said = "an evaluation is changed with --model, --texts and --set"
        _refuse_options(study, said, adapter, sites, dictionary)
        asked = evaluate_study(study, {"model": model, "texts": texts}, changes=changes)
    else:
        asked = audit_study(study, model, adapter, sites, texts, dictionary, changes, False)
    print_plan(asked, out, device, memory, json_)


def _refuse_options(study: Path | None, why: str, *given: object) -> None:
    if any(given):
        raise InputError(f"{study}: {why}; use --set")


def report(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
) -> None:
    """Make the report again from a run's results, without model or activations.

    **Example**

    `lorascope report runs/demo`
    """
    from lorascope.report import build

    say(str(build(run)))
