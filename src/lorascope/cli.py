"""The command line, one command a workflow. Exit codes: 0 done, 2 wrong input, 1 anything else."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, NoReturn

import typer

from lorascope.commands import (
    adapters,
    adapts,
    audits,
    behaviours,
    comparisons,
    dictionaries,
    features,
    latents,
    selftest,
    studies,
)
from lorascope.errors import InputError

app = typer.Typer(
    name="lorascope",
    help="What a LoRA adapter did to a model's features: every number beside its chance level.",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(studies.demo)
app.command()(audits.audit)
app.command()(adapts.adapt)
app.command()(latents.latent)
app.command()(studies.plan)
app.command("train-adapter")(adapters.train_adapter)
app.command()(dictionaries.dictionary)
app.command()(comparisons.compare)
app.add_typer(behaviours.app, name="behaviour")
app.command()(studies.report)
app.command()(features.features)
app.command()(selftest.selftest)

# typer carries click within it or depends on it; either way this is the base of usage errors.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130


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
