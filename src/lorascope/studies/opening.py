"""A run folder of any study, opened to make its stages: here, in a pool, or on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorascope.config import override, read_yaml
from lorascope.errors import InputError
from lorascope.progress import Reporter
from lorascope.runners import OpenedStudy
from lorascope.stages import Graph
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.adapt.workflow import ADAPT
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import AUDIT
from lorascope.studies.evaluate.settings import EvaluateStudy
from lorascope.studies.evaluate.workflow import EVALUATE
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.latent.workflow import LATENT
from lorascope.workflows.needs import stated
from lorascope.workflows.run_folders import run_folder
from lorascope.workflows.running import Workflow

Study = AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy
WORKFLOWS: tuple[Workflow[Any], ...] = (AUDIT, ADAPT, LATENT, EVALUATE)
_BY_NAME = {one.name: one for one in WORKFLOWS}
_BY_SETTINGS = {one.settings: one for one in WORKFLOWS}


def workflow_of(study: Study) -> Workflow[Any]:
    """The kind of study that settings are of."""
    return _BY_SETTINGS[type(study)]


def open_study(folder: Path, reporter: Reporter) -> OpenedStudy:
    """Open the study that a run folder holds.

    Raises:
        InputError: it holds none, or none that is made stage by stage.
    """
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder}: not a run folder (there is no study.yaml); give one")
    study = read_study(folder / "study.yaml")
    return workflow_of(study).open(study, folder, reporter)


def with_needs(folder: Path, opened: OpenedStudy) -> Graph:
    """The stages of an opened study with what each takes while it runs; raises as `plan`."""
    study = read_study(folder / "study.yaml")
    return stated(opened.graph, workflow_of(study).plan(study, estimates=False))


def read_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """The settings in a study file, of whichever workflow.

    Args:
        changes: `key.subkey=value`, laid over it.

    Raises:
        InputError: they are not valid, or of a workflow whose stages are not made alone.
    """
    data = override(read_yaml(path), changes)
    kind = str(data.get("workflow", AUDIT.name))
    if kind not in _BY_NAME:
        raise InputError(
            f'{path}: no workflow "{kind}" is made stage by stage; there are {", ".join(_BY_NAME)}'
        )
    if kind == AUDIT.name:
        data.pop("workflow", None)
    study: Study = _BY_NAME[kind].settings.parse(data, str(path))
    return study


def prepare(study: Study, folder: Path) -> None:
    """Make a run folder, or find the study's own, so that its stages can be made."""
    with run_folder(folder, study):
        pass
