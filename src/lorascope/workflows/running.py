"""A study from its settings to its report: what every kind of study does alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from lorascope import report
from lorascope.config import Settings
from lorascope.progress import Reporter
from lorascope.runners import Runner
from lorascope.runs import Run
from lorascope.stages import Graph, Stage, drop_others
from lorascope.workflows.cost import Cost, refuse_what_cannot_fit
from lorascope.workflows.needs import stated
from lorascope.workflows.run_folders import run_folder

Study_ = TypeVar("Study_", bound=Settings, contravariant=True)
Cost_ = TypeVar("Cost_", bound=Cost, covariant=True)


class Planner(Protocol[Study_, Cost_]):
    """What a study of a kind costs."""

    def __call__(self, study: Study_, *, estimates: bool) -> Cost_:
        """Its cost; without estimates of what is not at hand."""


S = TypeVar("S", bound=Settings)
C = TypeVar("C", bound=Cost)
State = TypeVar("State")


def run_study(
    study: S,
    out: Path,
    reporter: Reporter,
    command: str,
    redo: bool,
    runner: Runner,
    *,
    plan: Planner[S, C],
    opened: Callable[[S, Path, Reporter], State],
    stages: Callable[[State], Iterable[Stage]],
    before: Callable[[Run, State, Graph, C], None] = lambda run, state, graph, cost: None,
) -> Path:
    """Run or resume a study in `out` and return the report's path.

    Args:
        plan: of its kind of study.
        opened: what its stages share, from study, folder and reporter.
        stages: of what is opened.
        before: called before any stage is made; it may refuse.

    Raises:
        InputError: anything the user has to mend, before anything costly where that is possible.
    """
    with run_folder(out, study, redo, command) as run:
        cost = plan(study, estimates=False)
        refuse_what_cannot_fit(cost, out)
        state = opened(study, out, reporter)
        graph = stated(Graph(stages(state)), cost)
        before(run, state, graph, cost)
        runner(graph, run, state, reporter)
        drop_others(graph, out)
        reporter.say("writing the report")
        return report.build(out)
