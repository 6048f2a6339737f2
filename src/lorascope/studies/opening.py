"""A run folder of any study, opened to make its stages: here, in a pool, or on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorascope.progress import Reporter
from lorascope.runners import OpenedStudy
from lorascope.stages import Graph
from lorascope.studies.adapt.workflow import ADAPT
from lorascope.studies.audit.workflow import AUDIT
from lorascope.studies.evaluate.workflow import EVALUATE
from lorascope.studies.latent.workflow import LATENT
from lorascope.studies.study_files import Study, study_of_run
from lorascope.workflows.needs import stated
from lorascope.workflows.run_folders import run_folder
from lorascope.workflows.running import Workflow

WORKFLOWS: tuple[Workflow[Any], ...] = (AUDIT, ADAPT, LATENT, EVALUATE)
_BY_SETTINGS = {one.settings: one for one in WORKFLOWS}


def workflow_of(study: Study) -> Workflow[Any]:
    """The kind of study that settings are of."""
    return _BY_SETTINGS[type(study)]


def open_study(folder: Path, reporter: Reporter) -> OpenedStudy:
    """Open the study that a run folder holds.

    Raises:
        InputError: it holds none, or none that is made stage by stage.
    """
    study = study_of_run(folder)
    return workflow_of(study).open(study, folder, reporter)


def with_needs(folder: Path, opened: OpenedStudy) -> Graph:
    """The stages of an opened study with what each takes while it runs; raises as `plan`."""
    study = study_of_run(folder)
    return stated(opened.graph, workflow_of(study).plan(study, estimates=False))


def prepare(study: Study, folder: Path) -> None:
    """Make a run folder, or find the study's own, so that its stages can be made."""
    with run_folder(folder, study):
        pass
