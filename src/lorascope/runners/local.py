"""All stages of a study, one after the other in this process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from lorascope.progress import Reporter
from lorascope.runs import Run
from lorascope.stages import Graph, Stage, make


def titles(graph: Graph, run: Path) -> Counter[str]:
    """{title: stages of that kind that are still to be made}."""
    return Counter(one.maker.title for one in graph if not graph.is_done(run, one.name))


def run_here(graph: Graph, run: Run, state: Any, reporter: Reporter) -> None:
    """Make every stage that is not finished; raises as `stages.make`."""
    with reporter.stages(titles(graph, run.folder)) as advance:
        for unit in graph.units:
            todo: list[Stage] = graph.undone(run.folder, unit)
            if todo:
                advance(todo[0].maker.title, 0)
                make(graph, run.folder, todo, state, reporter)
                advance(todo[0].maker.title, len(todo))
                run.note(graph.records(run.folder))
    run.note(graph.records(run.folder))
