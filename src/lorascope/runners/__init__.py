"""Where the stages of a study are made: in this process, in several, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lorascope.progress import Reporter
from lorascope.runs import Run
from lorascope.stages import Graph

# Makes every stage of a graph that is not finished; takes the study's state too.
Runner = Callable[[Graph, Run, Any, Reporter], None]


class Opened(Protocol):
    """A study's run folder, opened in any process."""

    @property
    def state(self) -> Any:
        """Model, texts and finished stages, each read when first asked for."""

    @property
    def graph(self) -> Graph:
        """The study's stages."""


Opener = Callable[[Path, Reporter], Opened]
