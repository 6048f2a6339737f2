"""A kind of study: how its settings become stages, and these a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from lorascope import report
from lorascope.config import Settings
from lorascope.machine import require_files
from lorascope.progress import Reporter
from lorascope.runners import OpenedStudy, Runner
from lorascope.runners.local import run_here
from lorascope.runs import Run
from lorascope.stages import Graph, Stage, drop_others
from lorascope.workflows.cost import Cost, refuse_what_cannot_fit
from lorascope.workflows.needs import stated
from lorascope.workflows.run_folders import run_folder

S = TypeVar("S", bound=Settings)
S_contra = TypeVar("S_contra", bound=Settings, contravariant=True)


class Planner(Protocol[S_contra]):
    """What a study of a kind costs."""

    def __call__(self, study: S_contra, *, estimates: bool = True) -> Cost:
        """Its cost; without estimates of what is not at hand."""


@dataclass(frozen=True)
class Workflow(Generic[S]):
    """A kind of study.

    Attributes:
        name: what `workflow` in a study file says.
        settings: of such a study.
        plan: what one costs.
        state: what the stages share in one process, from study, folder and reporter.
        stages: every stage, each after those it reads, from that state.
        before: called before any stage is made, with the state's stages and the cost; may refuse.
    """

    name: str
    settings: type[S]
    plan: Planner[S]
    state: Callable[[S, Path, Reporter], Any]
    stages: Callable[[Any], Iterable[Stage]]
    before: Callable[[Run, Any, Graph, Any], None] = lambda run, state, graph, cost: None

    def open(self, study: S, folder: Path, reporter: Reporter) -> OpenedStudy:
        """A study in its run folder, ready to make stages."""
        state = self.state(study, folder, reporter)
        return OpenedStudy(state, Graph(self.stages(state)))

    def run(
        self,
        study: S,
        out: Path,
        reporter: Reporter,
        command: str = "",
        redo: bool = False,
        runner: Runner = run_here,
    ) -> Path:
        """Run or resume a study in `out` and return the report's path.

        Args:
            command: the command line, kept for the report.
            redo: where `out` holds this study with other settings, make again what depends on them.
            runner: where its stages are made; one after the other in this process by default.

        Raises:
            InputError: anything the user has to mend, before anything costly where that is
                possible.
        """
        # Seen at once, and not when all is computed.
        require_files(report.FILES)
        with run_folder(out, study, redo, command) as run:
            cost = self.plan(study, estimates=False)
            refuse_what_cannot_fit(cost, out)
            opened = self.open(study, out, reporter)
            graph = stated(opened.graph, cost)
            self.before(run, opened.state, graph, cost)
            runner(graph, run, opened.state, reporter)
            drop_others(graph, out)
            reporter.say("writing the report")
            return report.build(out)
