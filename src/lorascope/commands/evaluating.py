"""The command `evaluate`: dictionaries, and spliced, adapted and fine-tuned models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import (
    Force,
    Json,
    Out,
    PlanOnly,
    Quiet,
    Ray,
    Redo,
    Set,
    StudyFile,
    Texts,
    Threads,
    Workers,
    in_section,
    pairs,
    read_settings,
)
from lorascope.commands.running import StagePlace, run_or_plan
from lorascope.errors import InputError, did_you_mean
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.studies.evaluate.settings import EvaluateStudy

# What a subject given by options is called.
_SUBJECT = "subject"


Model = Annotated[str | None, typer.Option(help="Base model: hub id or folder.")]
Dictionary = Annotated[
    list[str] | None,
    typer.Option("--dictionary", help="Dictionary to evaluate: site=address. Repeatable."),
]
Reseeded = Annotated[
    list[str] | None,
    typer.Option("--reseeded", help="The same of another seed: site=address. Repeatable."),
]
Fitted = Annotated[
    str | None, typer.Option("--fitted", help="Folder of a fit that adapt made around them.")
]
FineTune = Annotated[
    str | None, typer.Option("--adapter", help="Adapter (a fine-tune) to put on the model.")
]
Delta = Annotated[bool, typer.Option("--delta", help="The dictionary is of the adapter's deltas.")]
Only = Annotated[
    str | None, typer.Option("--only", help="Evaluations, comma-separated: core,probing,…")
]
Sets = Annotated[
    list[str] | None, typer.Option("--sets", help="Labelled sets to probe: table, wheel, id.")
]
Tasks = Annotated[str | None, typer.Option("--tasks", help="Tasks of lm-eval, comma-separated.")]
Judge = Annotated[str | None, typer.Option("--judge", help="Model that explains latents.")]


def evaluate(
    study: StudyFile = None,
    model: Model = None,
    dictionary: Dictionary = None,
    reseeded: Reseeded = None,
    fitted: Fitted = None,
    adapter: FineTune = None,
    delta: Delta = False,
    texts: Texts = None,
    only: Only = None,
    sets: Sets = None,
    tasks: Tasks = None,
    judge: Judge = None,
    set_: Set = None,
    out: Out = None,
    force: Force = False,
    redo: Redo = False,
    workers: Workers = 1,
    threads: Threads = None,
    ray: Ray = None,
    plan: PlanOnly = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate dictionaries, and spliced, adapted and fine-tuned models, each number beside chance.

    core, probing and absorption are taken unless --only says otherwise; tpp, scr, autointerp,
    disentangling and benchmarks on demand.

    **Examples**

    `lorascope evaluate studies/evaluate_embedded.yaml`

    `lorascope evaluate --model embedded --dictionary layers.3=runs/mine --texts embedded`

    `lorascope evaluate --model embedded --fitted runs/around/fits/layers.3-lora-s0 --only core`

    `lorascope evaluate --model embedded --only benchmarks --tasks embedded --plan`
    """
    what: dict[str, Any] = {
        "fitted": fitted,
        "adapter": adapter,
        "delta": delta,
        "force": force,
        "only": only,
    }
    what |= {"model": model, "texts": texts}
    what |= {"sets": sets, "tasks": tasks, "judge": judge}
    example = "layers.5=runs/mine"
    what["dictionaries"] = pairs("--dictionary", dictionary or [], example)
    what["reseeded"] = pairs("--reseeded", reseeded or [], example)
    settings = evaluate_study(study, what, changes=set_)
    place = StagePlace(workers, threads, ray)
    page = run_or_plan(settings, out, plan, quiet or json_, redo, place)
    if page is not None:
        _print(page, json_)


def _print(page: Path, json_: bool) -> None:
    if not json_:
        say(str(page))
        return
    from lorascope.report.result import read_results
    from lorascope.studies.evaluate.page import evaluation_record

    numbers = [evaluation_record(one) for one in read_results(page.parents[1]).numbers]
    say_json({"report": str(page), "estimates": numbers})


def evaluate_study(
    study: Path | None, given: Mapping[str, Any], changes: Sequence[str] | None = None
) -> EvaluateStudy:
    """The study that a file and options say together; options win.

    Args:
        given: options by name, as `evaluate` takes them; those left out or empty change nothing.
    """
    from lorascope.config import override
    from lorascope.studies.evaluate.settings import EvaluateStudy

    data = read_settings(study, "evaluate")
    if given.get("model") is not None:
        data["model"] = given["model"]
    _subjects(data, given)
    if given.get("texts"):
        in_section(data, "texts", sources=list(given["texts"]))
    data.setdefault("texts", {"sources": ["embedded"]})
    _evaluations(data, given)
    if given.get("force"):
        data["force"] = True
    if study is None and "model" not in data:
        raise InputError("give a study file, or --model with --dictionary, --fitted or --tasks")
    return EvaluateStudy.parse(override(data, changes or []), str(study or "options"))


def _subjects(data: dict[str, Any], given: Mapping[str, Any]) -> None:
    names = ("dictionaries", "reseeded", "fitted", "adapter", "delta")
    own = {name: given[name] for name in names if given.get(name)}
    if own or "subjects" not in data:
        data["subjects"] = {_SUBJECT: own}


def _evaluations(data: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Which evaluations are taken, and what options say of them."""
    from lorascope.studies.evaluate.settings import DEFAULT, EVALUATIONS

    if given.get("only"):
        wanted = [name.strip() for name in given["only"].split(",") if name.strip()]
        for name in wanted:
            if name not in EVALUATIONS:
                hint = did_you_mean(name, EVALUATIONS)
                raise InputError(
                    f'--only: there is no "{name}".{hint} There are: {", ".join(EVALUATIONS)}'
                )
            if data.get(name) is None:
                data[name] = {}
        for name in EVALUATIONS:
            if name not in wanted and (name in data or name in DEFAULT):
                data[name] = None
    for option, section, field in (
        ("sets", "probing", "sets"),
        ("tasks", "benchmarks", "tasks"),
        ("judge", "autointerp", "judge"),
    ):
        value = given.get(option)
        if not value:
            continue
        if option == "tasks":
            value = [one.strip() for one in value.split(",") if one.strip()]
        in_section(data, section, **{field: value})
