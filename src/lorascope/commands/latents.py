"""The command `latent`: learn a behaviour as relations between latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import (
    BaseModel,
    DTypeOf,
    FittingWorkers,
    Force,
    Out,
    PlanOnly,
    Quiet,
    Ray,
    Redo,
    Revision,
    Set,
    StudyFile,
    Threads,
    Track,
    in_section,
    of_base,
    read_settings,
    require_options,
)
from lorascope.commands.running import StagePlace, run_or_plan
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.studies.latent.study import LatentStudy

_REQUIRED = {"--model": "model", "--behaviour": "behaviour", "--site": "site"}


def latent(
    study: StudyFile = None,
    model: BaseModel = None,
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
    force: Force = False,
    redo: Redo = False,
    workers: FittingWorkers = None,
    threads: Threads = None,
    ray: Ray = None,
    track: Track = None,
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
    page = run_or_plan(settings, out, plan, quiet, redo, StagePlace(workers, threads, ray, track))
    if page is not None:
        say(str(page))


def latent_study(
    study: Path | None,
    given: dict[str, Any],
    rank: int | None,
    changes: list[str] | None,
    force: bool = False,
) -> LatentStudy:
    """The study that a file and options say together; options win."""
    from lorascope.config import override
    from lorascope.studies.latent.study import LatentStudy

    data = read_settings(study, "latent")
    data |= {name: value for name, value in given.items() if value is not None}
    if rank is not None:
        in_section(data, "training", rank=rank)
    if force:
        data["force"] = True
    require_options(study, data, _REQUIRED)
    return LatentStudy.parse(override(data, changes or []), str(study or "options"))
