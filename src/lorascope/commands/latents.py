"""Latent adapters: learn a behaviour as relations between latents."""

from __future__ import annotations

import shlex
import sys
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
    require_workflow,
)
from lorascope.commands.planning import print_plan_of_run
from lorascope.errors import InputError
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.studies.latent.study import LatentStudy

_REQUIRED = {"--model": "model", "--behaviour": "behaviour", "--site": "site"}


def latent(
    study: Annotated[Path | None, typer.Argument(help="Study file; or use the options.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model: hub id, folder or GGUF file.")
    ] = None,
    behaviour: Annotated[
        str | None, typer.Option(help="Set made by lorascope behaviour make, or embedded.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="layers.5 = output of block 5.")] = None,
    dictionary: Annotated[
        str | None, typer.Option(help="Address of the dictionary there; else one is trained.")
    ] = None,
    manner: Annotated[
        str | None, typer.Option(help="What changed responses look like: french, upper, …")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the adapters.")] = None,
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    out: Out = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept a dictionary made for another model or site.")
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
    """Learn a behaviour as relations between latents, sparse enough to read.

    Trains adapters that read and write latents of a dictionary, one for each way of keeping them
    sparse, and says how much of the behaviour is kept by how few latents, and which these are.

    **Examples**

    `lorascope latent studies/latent_embedded.yaml`

    `lorascope latent studies/latent_embedded.yaml --workers 4`

    `lorascope latent --model me/chat-2b --behaviour sets/pirate --manner "in a pirate's voice"
    --set judge=matey --site layers.12 --dictionary runs/mine/dictionaries/layers.12`
    """
    given = {"model": model, "behaviour": behaviour, "site": site, "dictionary": dictionary}
    changes = of_base(set_, dtype, revision)
    settings = latent_study(study, {**given, "manner": manner}, rank, changes, force)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    if plan:
        print_plan_of_run(settings, folder, redo)
        return
    run_latent(settings, folder, quiet, redo, StagePlace(workers, threads, ray))


def run_latent(
    study: LatentStudy, out: Path, quiet: bool, redo: bool = False, place: StagePlace | None = None
) -> None:
    """Run a latent study and print where its report is."""
    from lorascope.studies import missing

    missing.in_study(study)
    missing.in_folder(out, study, redo)
    from lorascope.progress import Reporter
    from lorascope.studies.latent.workflow import learn_latent

    command = shlex.join(["lorascope", *sys.argv[1:]])
    runner = (place or StagePlace()).runner()
    say(str(learn_latent(study, out, Reporter(quiet), command, redo, runner)))


def latent_study(
    study: Path | None,
    given: dict[str, Any],
    rank: int | None,
    changes: list[str] | None,
    force: bool = False,
) -> LatentStudy:
    """The study that a file and options say together; options win."""
    from lorascope.config import override, read_yaml
    from lorascope.studies.latent.study import LatentStudy

    require_workflow(study, "latent")
    data: dict[str, Any] = read_yaml(study) if study is not None else {}
    data |= {name: value for name, value in given.items() if value is not None}
    if rank is not None:
        before = data.get("training")
        data["training"] = {**(before if isinstance(before, dict) else {}), "rank": rank}
    if force:
        data["force"] = True
    if study is None:
        missing = [option for option, key in _REQUIRED.items() if key not in data]
        if missing:
            raise InputError(f"give a study file, or the options {', '.join(missing)}")
    return LatentStudy.parse(override(data, changes or []), str(study or "options"))
