"""The command `adapt`: fit a model around its frozen dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.options import (
    BaseModel,
    DTypeOf,
    Force,
    Out,
    PlanOnly,
    Quiet,
    Ray,
    Redo,
    Revision,
    Set,
    StudyFile,
    Texts,
    Threads,
    Track,
    Workers,
    in_section,
    of_base,
    pairs,
    read_settings,
    require_options,
)
from lorascope.commands.running import StagePlace, run_or_plan
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.studies.adapt.study import AdaptStudy

_REQUIRED = {"--model": "model", "--dictionary": "dictionaries", "--texts": "texts"}


def adapt(
    study: StudyFile = None,
    model: BaseModel = None,
    dictionary: Annotated[
        list[str] | None,
        typer.Option("--dictionary", help="Dictionary to fit around: site=address. Repeatable."),
    ] = None,
    texts: Texts = None,
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    out: Out = None,
    force: Force = False,
    redo: Redo = False,
    workers: Workers = 1,
    threads: Threads = None,
    ray: Ray = None,
    track: Track = None,
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
    page = run_or_plan(settings, out, plan, quiet, redo, StagePlace(workers, threads, ray, track))
    if page is not None:
        say(str(page))


def adapt_study(
    study: Path | None,
    model: str | None,
    dictionaries: Sequence[str] | None,
    texts: Sequence[str] | None,
    changes: Sequence[str] | None,
    force: bool,
) -> AdaptStudy:
    """The study that a file and options say together; options win."""
    from lorascope.config import override
    from lorascope.studies.adapt.study import AdaptStudy

    data = read_settings(study, "adapt")
    if model is not None:
        data["model"] = model
    if dictionaries:
        brought = pairs("--dictionary", dictionaries, "layers.5=runs/mine")
        named = {site: {"site": site, "address": address} for site, address in brought.items()}
        data["dictionaries"] = {"bring": named}
    if texts:
        in_section(data, "texts", sources=list(texts))
    if force:
        data["force"] = True
    require_options(study, data, _REQUIRED)
    return AdaptStudy.parse(override(data, changes or []), str(study or "options"))
