"""The command `audit`: what adapters add to the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.options import (
    Adapter,
    BaseDictionary,
    DTypeOf,
    FittingWorkers,
    Force,
    Json,
    Out,
    PlanOnly,
    Quiet,
    Ray,
    Redo,
    Revision,
    Set,
    Texts,
    Threads,
    Track,
    in_section,
    of_base,
    pairs,
    read_settings,
)
from lorascope.commands.running import StagePlace, run_or_plan
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
    texts: Texts = None,
    dictionary: BaseDictionary = None,
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
    place = StagePlace(workers, threads, ray, track)
    page = run_or_plan(settings, out, plan, quiet or json_, redo, place)
    if page is not None:
        print_verdicts(page, quiet, json_)


def print_verdicts(page: Path, quiet: bool, json_: bool) -> None:
    """The verdicts of a finished audit as a table or as JSON, and the report's path."""
    from lorascope.printing import Console
    from lorascope.studies.audit.sections.terminal import summary, summary_data

    folder = page.parents[1]
    if json_:
        say_json(summary_data(folder, page))
        return
    if not quiet:
        Console().print(summary(folder))
    say(str(page))


def audit_study(
    study: Path | None,
    model: str | None,
    adapter: Sequence[str] | None,
    sites: str | None,
    texts: Sequence[str] | None,
    dictionaries: Sequence[str] | None,
    changes: Sequence[str] | None,
    force: bool,
) -> AuditStudy:
    """The study that a file and options say together; options win.

    A folder in the file's place is an adapter. Without a file the base model is the one that the
    adapters name, sites are three depths, and texts those of the package.
    """
    from lorascope.config import override
    from lorascope.studies.audit.defaults import completed, named_adapters
    from lorascope.studies.audit.study import AuditStudy

    if study is not None and study.is_dir():
        study, adapter = None, [str(study), *(adapter or [])]
    data = read_settings(study, "audit")
    data.pop("workflow", None)
    if model is not None:
        data["model"] = model
    if adapter:
        data["adapters"] = named_adapters(adapter)
        data.pop("train", None)
    if sites is not None:
        data["sites"] = [site.strip() for site in sites.split(",") if site.strip()]
    if texts:
        in_section(data, "texts", sources=list(texts))
    if dictionaries:
        brought = pairs("--dictionary", dictionaries, "layers.5=runs/mine")
        in_section(data, "dictionaries", base=brought)
    if force:
        data["force"] = True
    data = override(data, changes or [])
    if study is None:
        if not data.get("adapters"):
            raise InputError("give a study file, an adapter's folder, or --adapter")
        data = completed(data)
    return AuditStudy.parse(data, str(study or "options"))
