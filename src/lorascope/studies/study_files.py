"""Study files of whichever workflow, read before any large library is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorascope.config import override, read_yaml
from lorascope.errors import InputError, did_you_mean
from lorascope.folder_contents import held
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.evaluate.settings import EvaluateStudy
from lorascope.studies.latent.study import LatentStudy

Study = AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy
# What `workflow` in a study file says; an audit's says nothing.
AUDIT = "audit"
KINDS: dict[str, type[Study]] = {
    AUDIT: AuditStudy,
    "adapt": AdaptStudy,
    "latent": LatentStudy,
    "evaluate": EvaluateStudy,
}


def read_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """The settings in a study file, of whichever workflow.

    Args:
        changes: `key.subkey=value`, laid over it.

    Raises:
        InputError: they are not valid, or of a workflow whose stages are not made alone.
    """
    data = override(read_yaml(path), changes)
    kind = str(data.get("workflow", AUDIT))
    if kind not in KINDS:
        raise InputError(
            f'{path}: no workflow "{kind}" is made stage by stage.{did_you_mean(kind, KINDS)} '
            f"There are: {', '.join(KINDS)}"
        )
    if kind == AUDIT:
        data.pop("workflow", None)
    study: Study = KINDS[kind].parse(data, str(path))
    return study


def study_of_run(folder: Path) -> Study:
    """The settings of the study that a run folder holds.

    Raises:
        InputError: it holds none, or none that is made stage by stage.
    """
    if not (folder / "study.yaml").is_file():
        raise InputError(
            f"{folder}: {held(folder)}; give a run folder, as lorascope stages STUDY --out FOLDER "
            "makes one"
        )
    return read_study(folder / "study.yaml")
