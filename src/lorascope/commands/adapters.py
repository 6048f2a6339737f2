"""The command that trains adapters to audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import (
    DTypeOf,
    Quiet,
    Revision,
    Set,
    Track,
    known_tracker,
    numbers,
    of_base,
)
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.workflows.settings import TrainStudy


def train_adapter(
    model: Annotated[
        str, typer.Option(help="Base model: hub id, folder, GGUF file or embedded.")
    ] = "embedded",
    records: Annotated[
        list[str] | None, typer.Option(help="Instruction records; embedded by default.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="Comma-separated ranks.")] = "4,8,16,32",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 150,
    batch: Annotated[int, typer.Option(help="Records a step.")] = 8,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Starting weights, split and order.")] = 0,
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapters.")] = Path(
        "runs/adapters"
    ),
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Train LoRA adapters that differ in rank alone; saved in PEFT format.

    **Examples**

    `lorascope train-adapter --records alpaca.json --out runs/alpaca`

    `lorascope train-adapter --model google/gemma-2-2b --ranks 8 --steps 500 --set
    training.context=512`
    """
    from lorascope.config import override
    from lorascope.studies import missing
    from lorascope.workflows.settings import TrainStudy

    given: dict[str, Any] = {
        "model": model,
        "records": records or ["embedded"],
        "training": {
            "ranks": numbers(ranks, "--ranks"),
            "steps": steps,
            "batch": batch,
            "rate": rate,
            "seed": seed,
        },
    }
    study = TrainStudy.parse(override(given, of_base(set_, dtype, revision)), "train-adapter")
    tracker = known_tracker(track)
    missing.in_training(study)
    missing.in_folder(out, study)
    _train(study, out, quiet, tracker)


def _train(study: TrainStudy, out: Path, quiet: bool, track: str) -> None:
    from rich.table import Table

    from lorascope.printing import Console
    from lorascope.progress import Reporter
    from lorascope.workflows.adapters import run_training

    found = run_training(study, out, Reporter(quiet, track))
    table = Table(title="response loss, nats/token")
    for heading in ("adapter", "steps", "parameters", "training", "held out: base", "with adapter"):
        table.add_column(heading, justify="left" if heading == "adapter" else "right")
    for row in found.to_dict("records"):
        losses = (row["train_loss"], row["held_out_before"], row["held_out_after"])
        counts = (f"{row['steps']:,}", f"{row['parameters']:,}")
        table.add_row(str(row["adapter"]), *counts, *(f"{loss:.3f}" for loss in losses))
    Console().print(table)
    say(str(out / "adapters"))
