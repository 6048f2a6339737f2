"""The command that writes an audit's findings into an adapter's own model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorascope.folder_contents import AUDIT, require_finished
from lorascope.printing import say


def card(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    adapter: Annotated[
        str | None, typer.Option(help="Which of its adapters, where there are several.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to fill; README.md in the adapter's folder by default."),
    ] = None,
) -> None:
    """Fill an adapter's model card: what it learned, its numbers with chance levels, how checked.

    Metrics go into the card's model-index. What the author wrote is left as it is: only the part
    between two marks, and the metrics that this command wrote before, are made anew.

    **Examples**

    `lorascope card runs/audit`

    `lorascope card runs/demo --adapter r4 --out r4.md`
    """
    require_finished(run, AUDIT)
    from lorascope.cards.card import fill

    say(str(fill(run, adapter, out)))
