"""The command line, one command a workflow. Exit codes: 0 done, 2 wrong input, 1 anything else."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lorascope.errors import InputError

app = typer.Typer(
    name="lorascope",
    help="What a LoRA adapter did to a model's features: every number beside its chance level.",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Out = Annotated[Path | None, typer.Option("--out", help="Run folder; the same one resumes.")]
# typer carries click within it or depends on it; either way this is the base of usage errors.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130

BaseDictionary = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        help="Base dictionary to bring along instead of training one: site=address. Repeatable.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting of the study: key.subkey=value. Repeatable."),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="name=folder or name=hub id. Repeatable."),
]


@app.command()
def demo(
    workflow: Annotated[str, typer.Argument(help="Which workflow: audit.")] = "audit",
    quick: Annotated[bool, typer.Option("--quick", help="Two ranks, two sites: ≤ 90 s.")] = False,
    out: Out = None,
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
    _audit(study, out or Path("runs") / study.name, quiet)


@app.command()
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
    settings = _study(study, model, adapter, sites, texts, dictionary, set_, force)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    _audit(settings, folder, quiet, redo)


@app.command()
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

    settings = _study(study, model, adapter, sites, texts, dictionary, set_, False)
    cost = cost_of(settings)
    table = Table(show_header=False, box=None)
    for what, much in cost.lines():
        table.add_row(what, much)
    Console().print(table)
    refuse_what_cannot_fit(cost, out)


@app.command("train-adapter")
def train_adapter(
    model: Annotated[
        str, typer.Option(help="Base model: hub id, folder or embedded.")
    ] = "embedded",
    records: Annotated[
        list[str] | None, typer.Option(help="Instruction records; embedded by default.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="Comma-separated ranks.")] = "4,8,16,32",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 150,
    batch: Annotated[int, typer.Option(help="Records a step.")] = 8,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Starting weights, split and order.")] = 0,
    set_: Set = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapters.")] = Path(
        "runs/adapters"
    ),
    quiet: Quiet = False,
) -> None:
    """Train LoRA adapters that differ in rank alone; saved in PEFT format.

    **Examples**

    `lorascope train-adapter --records alpaca.json --out runs/alpaca`

    `lorascope train-adapter --model google/gemma-2-2b --ranks 8 --steps 500 --set
    training.context=512`
    """
    from rich.console import Console
    from rich.table import Table

    from lorascope.config import override
    from lorascope.workflows.adapters import TrainStudy, run_training
    from lorascope.workflows.progress import Reporter

    given: dict[str, Any] = {
        "model": model,
        "records": records or ["embedded"],
        "training": {
            "ranks": _numbers(ranks, "--ranks"),
            "steps": steps,
            "batch": batch,
            "rate": rate,
            "seed": seed,
        },
    }
    study = TrainStudy.parse(override(given, set_ or []), "train-adapter")
    found = run_training(study, out, Reporter(quiet))
    table = Table(title="response loss, nats/token")
    for heading in ("adapter", "steps", "parameters", "training", "held out: base", "with adapter"):
        table.add_column(heading, justify="left" if heading == "adapter" else "right")
    for row in found.to_dict("records"):
        losses = (row["train_loss"], row["held_out_before"], row["held_out_after"])
        counts = (f"{row['steps']:,}", f"{row['parameters']:,}")
        table.add_row(str(row["adapter"]), *counts, *(f"{loss:.3f}" for loss in losses))
    Console().print(table)
    typer.echo(str(out / "adapters"))


@app.command()
def dictionary(
    address: Annotated[
        str,
        typer.Argument(help="Folder, hf://owner/repo/folder[@revision], or saelens:release/id."),
    ],
    model: Annotated[
        str | None, typer.Option(help="Try it on this model: hub id or folder.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option(help="Texts to try it on: file, folder or dataset id.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Most tokens to try it on.")] = 4096,
    site: Annotated[
        str | None, typer.Option(help="Where to try it; by default where its file says.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Try it on what this adapter adds: folder or hub id.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Try it on a model or site it was not made for.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Plain JSON instead of a table.")] = False,
) -> None:
    """Say what a dictionary is: format, sizes, site, gate; and how it does on texts.

    Reads SAELens, Gemma Scope 1 and 2, Llama Scope, sparsify and dictionary_learning files. With
    --model and --texts it prints FVU, relative error, L0 and dead share beside what predicts
    nothing, and warns where the dictionary does not fit.

    **Examples**

    `lorascope dictionary runs/demo/dictionaries/layers.5-base-seed0`

    `lorascope dictionary hf://google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 --json`

    `lorascope dictionary saelens:llama_scope_lxr_8x/l15r_8x --model meta-llama/Llama-3.1-8B
    --texts alpaca.json`
    """
    import json

    from rich.console import Console

    from lorascope.dictionaries.files import open_dictionary
    from lorascope.workflows import inspecting

    if bool(model) != bool(texts):
        raise InputError("--model and --texts go together: give both, or neither")
    opened = open_dictionary(address)
    facts = inspecting.describe(opened)
    if model and texts:
        given = {"model": model, "texts": texts, "rows": rows, "site": site, "force": force}
        wanted = inspecting.OnTexts.parse({**given, "adapter": adapter}, "dictionary")
        facts["tried"] = inspecting.try_on(opened, wanted)
    if json_:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        for table in inspecting.tables(facts):
            Console().print(table)
    for line in inspecting.complaints(facts):
        typer.echo(f"lorascope: warning: {line}", err=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
) -> None:
    """Make the report again from a run's results, without model or activations.

    **Example**

    `lorascope report runs/demo`
    """
    from lorascope.report import build

    typer.echo(str(build(run)))


def _audit(study: Any, out: Path, quiet: bool, redo: bool = False) -> None:
    from lorascope.workflows.audit import audit as run_audit
    from lorascope.workflows.progress import Reporter

    command = shlex.join(["lorascope", *sys.argv[1:]])
    path = run_audit(study, out, Reporter(quiet), command, redo)
    typer.echo(str(path))


def _study(
    study: Path | None,
    model: str | None,
    adapter: Sequence[str] | None,
    sites: str | None,
    texts: Sequence[str] | None,
    dictionaries: Sequence[str] | None,
    changes: Sequence[str] | None,
    force: bool,
) -> Any:
    from lorascope.config import override, read_yaml
    from lorascope.workflows.study import AuditStudy

    data: dict[str, Any] = read_yaml(study) if study is not None else {}
    if model is not None:
        data["model"] = model
    if adapter:
        data["adapters"] = _pairs("--adapter", adapter, "r4=runs/r4")
        data.pop("train", None)
    if sites is not None:
        data["sites"] = [site.strip() for site in sites.split(",") if site.strip()]
    if texts:
        before = data.get("texts")
        kept = before if isinstance(before, dict) else {}
        data["texts"] = {**kept, "sources": list(texts)}
    if dictionaries:
        before = data.get("dictionaries")
        brought = _pairs("--dictionary", dictionaries, "layers.5=runs/mine")
        data["dictionaries"] = {**(before if isinstance(before, dict) else {}), "base": brought}
    if force:
        data["force"] = True
    if study is None:
        missing = [o for o, k in _REQUIRED.items() if k not in data]
        if missing:
            raise InputError(f"give a study file, or the options {', '.join(missing)}")
    return AuditStudy.parse(override(data, changes or []), str(study or "options"))


_REQUIRED = {"--model": "model", "--adapter": "adapters", "--sites": "sites", "--texts": "texts"}


def _pairs(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise InputError(f"{option} {text}: expected name=path, as in {option} {example}")
        if name in pairs:
            raise InputError(f"{option} {text}: the name {name} is given twice")
        pairs[name] = path
    return pairs


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: expected whole numbers, as in {option} 4,8") from None


def main() -> None:
    """Entry point: input errors become one line and exit code 2."""
    # The bars of the libraries would stand between ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What libraries say to their own developers is not for whoever runs an audit.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="lorascope", standalone_mode=False)
    except InputError as error:
        _refuse(str(error))
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "lorascope"
        _refuse(f"{error.format_message().rstrip('.')}; see {command} --help")
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        typer.echo("lorascope: stopped; run the same command to go on", err=True)
    if code:
        sys.exit(code)


def _refuse(message: str) -> NoReturn:
    typer.echo(f"lorascope: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
