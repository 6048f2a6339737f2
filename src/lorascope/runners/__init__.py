"""Where the stages of a study are made: in this process, in several, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.progress import Reporter
from lorascope.runs import Run
from lorascope.stages import Graph

# Makes every stage of a graph that is not finished; takes the study's state too.
Runner = Callable[[Graph, Run, Any, Reporter], None]


@dataclass(frozen=True)
class OpenedStudy:
    """A study's run folder, opened in one process.

    Attributes:
        state: what its stages share in the process: model, texts and finished stages, each read
            when first asked for.
        graph: its stages.
    """

    state: Any
    graph: Graph


Opener = Callable[[Path, Reporter], OpenedStudy]
