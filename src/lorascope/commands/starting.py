"""The command that copies study files and examples, and the versions in use."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from lorascope.printing import say

# The package, and the libraries that decide the numbers most.
_PACKAGES = ("lorascope", "torch", "transformers", "peft")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to copy them; made if missing.")] = Path(),
) -> None:
    """Copy the study files and examples that ship with lorascope, to begin from.

    They go into studies/ and examples/ below the folder. Nothing is overwritten.

    **Examples**

    `lorascope init my-audit`

    `lorascope plan my-audit/studies/embedded.yaml`
    """
    from lorascope.embedded.starters import copy_starters

    for place in copy_starters(folder):
        say(str(place))


def print_versions(wanted: bool) -> None:
    """Print the versions of the package and its main libraries, none of them imported, and end."""
    if not wanted:
        return
    for name in _PACKAGES:
        say(f"{name} {_version(name)}")
    raise typer.Exit


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"
