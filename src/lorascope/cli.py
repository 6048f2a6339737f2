"""The command line, one command a workflow.

Exit codes: 0 done; 2 wrong input, or something the system refused; 130 and 143 stopped by Ctrl-C or
SIGTERM; 1 anything else.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from lorascope.commands import (
    adapters,
    adapts,
    audits,
    behaviours,
    cards,
    checking,
    comparisons,
    dictionaries,
    evaluating,
    exporting,
    features,
    latents,
    publishing,
    reading,
    selftest,
    stages,
    starting,
    studies,
)
from lorascope.errors import InputError, as_system_error, cause_in_the_system, system_error
from lorascope.printing import say, shown_warnings

_SUMMARY = "What a LoRA adapter did to a model's features: every number beside its chance level."

app = typer.Typer(
    name="lorascope",
    help=_SUMMARY,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback(help=_SUMMARY)
def lorascope(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=starting.print_versions,
            is_eager=True,
            help="Print the versions of lorascope, torch, transformers and peft.",
        ),
    ] = False,
) -> None:
    """Options before any command."""
    del version


app.command()(starting.init)
app.command()(studies.demo)
app.command()(audits.audit)
app.command()(adapts.adapt)
app.command()(latents.latent)
app.command()(evaluating.evaluate)
app.command()(studies.plan)
app.command()(checking.check)
app.command()(checking.scan)
app.command("train-adapter")(adapters.train_adapter)
app.command()(dictionaries.dictionary)
app.command()(comparisons.compare)
app.command()(cards.card)
app.command()(reading.read)
app.add_typer(behaviours.app, name="behaviour")
app.command()(studies.report)
app.command()(stages.stages)
app.command()(stages.stage)
app.command()(stages.slurm)
app.command()(features.features)
app.command()(publishing.publish)
app.command()(exporting.export)
app.command()(selftest.selftest)

# typer carries click within it or depends on it; either way this is the base of usage errors.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130
_TERMINATED = 128 + signal.SIGTERM


def main() -> None:
    """Entry point: input errors become one line and exit code 2."""
    # The bars of the libraries would stand between ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait for one another give their processor up. By default they spin, and beside
    # another busy program a pass through a model on two cores then takes six to ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _terminable(), shown_warnings():
        code = _run()
    if code:
        sys.exit(code)


def _run() -> int:
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="lorascope", standalone_mode=False)
    except InputError as error:
        system = cause_in_the_system(error)
        _refuse(str(error) if system is None else system_error(system))
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "lorascope"
        _refuse(f"{error.format_message().rstrip('.')}; see {command} --help")
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more is flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _refuse(system_error(error))
    except _Terminated:
        code = _TERMINATED
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except Exception as error:
        found = as_system_error(error, "")
        if found is None:
            raise
        _refuse(system_error(found))
    if code in (_INTERRUPTED, _TERMINATED):
        say("lorascope: stopped; run the same command to go on", err=True)
    return int(code or 0)


class _Terminated(BaseException):
    """SIGTERM: ends a run as Ctrl-C does, so that nothing half made is left."""


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(message: str) -> NoReturn:
    say(f"lorascope: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
