"""A run folder of any study, opened to make its stages: here, in a pool, or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lorascope.config import override, read_yaml
from lorascope.errors import InputError
from lorascope.progress import Reporter
from lorascope.stages import Graph
from lorascope.studies.adapt import workflow as adapt
from lorascope.studies.adapt.plan import plan_adapt
from lorascope.studies.adapt.state import Adapted
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.audit import workflow as audit
from lorascope.studies.audit.plan import plan
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.evaluate import workflow as evaluating
from lorascope.studies.evaluate.plan import plan_evaluate
from lorascope.studies.evaluate.settings import EvaluateStudy
from lorascope.studies.evaluate.state import Evaluating
from lorascope.studies.latent import workflow as latent
from lorascope.studies.latent.plan import plan_latent
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import LatentStudy
from lorascope.workflows.cost import Cost
from lorascope.workflows.needs import stated
from lorascope.workflows.run_folders import run_folder

Study = AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy


@dataclass(frozen=True)
class OpenedStudy:
    """A study's run folder.

    Attributes:
        state: what its stages share in one process.
        graph: its stages.
    """

    state: Any
    graph: Graph


def open_study(folder: Path, reporter: Reporter) -> OpenedStudy:
    """Open the study that a run folder holds.

    Raises:
        InputError: it holds none, or none that is made stage by stage.
    """
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder}: not a run folder (there is no study.yaml); give one")
    study = read_study(folder / "study.yaml")
    return _OPEN[type(study)](study, folder, reporter)


def with_needs(folder: Path, opened: OpenedStudy) -> Graph:
    """The stages of an opened study with what each takes while it runs; raises as `plan`."""
    study = read_study(folder / "study.yaml")
    return stated(opened.graph, _PLANS[type(study)](study))


def read_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """The settings in a study file, of whichever workflow.

    Args:
        changes: `key.subkey=value`, laid over it.

    Raises:
        InputError: they are not valid, or of a workflow whose stages are not made alone.
    """
    data = override(read_yaml(path), changes)
    kind = str(data.get("workflow", "audit"))
    if kind not in _STUDIES:
        raise InputError(f"{path}: holds a study of {kind}, whose stages cannot be made alone")
    if kind == "audit":
        data.pop("workflow", None)
    return _STUDIES[kind].parse(data, str(path))


def prepare(study: Study, folder: Path) -> None:
    """Make a run folder, or find the study's own, so that its stages can be made."""
    with run_folder(folder, study):
        pass


def _audit(study: AuditStudy, folder: Path, reporter: Reporter) -> OpenedStudy:
    state = Audited(study, folder, reporter)
    return OpenedStudy(state, Graph(audit.stages(state)))


def _adapt(study: AdaptStudy, folder: Path, reporter: Reporter) -> OpenedStudy:
    state = Adapted(study, folder, reporter)
    return OpenedStudy(state, Graph(adapt.stages(state)))


def _latent(study: LatentStudy, folder: Path, reporter: Reporter) -> OpenedStudy:
    state = LatentRun(study, folder, reporter)
    return OpenedStudy(state, Graph(latent.stages(state)))


def _evaluate(study: EvaluateStudy, folder: Path, reporter: Reporter) -> OpenedStudy:
    state = Evaluating(study, folder, reporter)
    return OpenedStudy(state, Graph(evaluating.stages(state)))


_STUDIES: dict[str, type[Study]] = {
    "audit": AuditStudy,
    "adapt": AdaptStudy,
    "latent": LatentStudy,
    "evaluate": EvaluateStudy,
}
_PLANS: dict[type, Callable[[Any], Cost]] = {
    AuditStudy: partial(plan, estimates=False),
    AdaptStudy: partial(plan_adapt, estimates=False),
    LatentStudy: partial(plan_latent, estimates=False),
    EvaluateStudy: partial(plan_evaluate, estimates=False),
}
_OPEN: dict[type, Callable[[Any, Path, Reporter], OpenedStudy]] = {
    AuditStudy: _audit,
    AdaptStudy: _adapt,
    LatentStudy: _latent,
    EvaluateStudy: _evaluate,
}
