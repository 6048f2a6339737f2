"""The command that uploads what runs made to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorascope.errors import InputError
from lorascope.printing import say

# Stands for the repository in a dry run that names none.
_UNNAMED = "OWNER/NAME"


def publish(
    source: Annotated[
        Path,
        typer.Argument(
            help="An audit's run, or a folder in a run: a dictionary, a latent adapter, a fit."
        ),
    ],
    repo: Annotated[
        str | None, typer.Argument(help="Repository, owner/name; made if missing.")
    ] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option("--dry-run", help="Write the folder that would be uploaded here instead."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a run's dictionaries, those of such names, as in `*-delta-*`. Repeatable."
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="The run's report, as a static Space.")
    ] = False,
    license_: Annotated[
        str, typer.Option("--license", help="Its licence, as the hub calls it.")
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="A private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to upload to.")] = None,
) -> None:
    """Publish dictionaries, latent adapters, fits or a report, with a card that has chance levels.

    Dictionaries are in SAELens layout. The card says what they were trained on, gives each number
    beside its chance level, and code that opens them.

    **Examples**

    `lorascope publish runs/mine me/my-lora-saes --license apache-2.0`

    `lorascope publish runs/mine --only '*-delta-*-seed0' --dry-run out/saes`

    `lorascope publish runs/latent/adapters/preselected-s0 me/french-sums`

    `lorascope publish runs/mine me/my-lora-report --report`
    """
    if repo is None and dry_run is None:
        raise InputError("name the repository, owner/name, or give --dry-run FOLDER")
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give a run, or a folder in one")
    if dry_run is not None and dry_run.exists() and (dry_run.is_file() or any(dry_run.iterdir())):
        raise InputError(f"{dry_run}: holds something already; give a new folder")
    from lorascope.workflows.publishing import Wish, publish_folder

    wish = Wish(tuple(only or ()), report, license_, private, revision)
    say(publish_folder(source, repo or _UNNAMED, wish, dry_run))
