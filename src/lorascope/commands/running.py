"""Running a study, or only planning it: what the commands of all studies do alike."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.commands.options import known_tracker
from lorascope.commands.planning import print_plan
from lorascope.errors import InputError

if TYPE_CHECKING:
    from lorascope.runners import Runner
    from lorascope.studies.study_files import Study


@dataclass(frozen=True)
class StagePlace:
    """Where a study's stages are made, as options say.

    Attributes:
        workers, threads, ray, track: as the options of these names; without a number of workers
            there are as many as the machine has room for.
    """

    workers: int | None = 1
    threads: int | None = None
    ray: str | None = None
    track: str | None = None

    def runner(self) -> Runner:
        """What makes the stages there.

        Raises:
            InputError: two places are named, or Ray is not installed.
        """
        from lorascope.runners.local import run_here
        from lorascope.runners.pool import as_many_as_fit, in_pool, set_threads
        from lorascope.studies.opening import open_study

        if self.ray is not None:
            from lorascope.runners.on_ray import on_ray

            if self.workers is not None and self.workers > 1:
                raise InputError("give --workers or --ray, not both")
            return on_ray(open_study, self.ray, self.threads)
        if self.workers is None:
            return as_many_as_fit(open_study, self.threads)
        if self.workers > 1:
            return in_pool(open_study, self.workers, self.threads)
        if self.threads is not None:
            set_threads(self.threads)
        return run_here


def command_line() -> str:
    """The command as it was given, for the report."""
    return shlex.join(["lorascope", *sys.argv[1:]])


def usual_folder(study: Study) -> Path:
    """The run folder of a study for which none is named."""
    return Path("runs") / f"{study.name}-{study.digest()[:8]}"


def run(
    study: Study, out: Path, quiet: bool, redo: bool = False, place: StagePlace | None = None
) -> Path:
    """Run a study; the path of its report. Input is refused before large libraries are imported."""
    from lorascope.studies import missing

    place = place or StagePlace()
    track = known_tracker(place.track)
    missing.in_study(study)
    missing.in_folder(out, study, redo)
    from lorascope.progress import Reporter
    from lorascope.studies.opening import workflow_of

    reporter = Reporter(quiet, track)
    runner = place.runner()
    return workflow_of(study).run(study, out, reporter, command_line(), redo, runner)


def run_or_plan(
    study: Study, out: Path | None, plan: bool, quiet: bool, redo: bool, place: StagePlace
) -> Path | None:
    """As `run`; with `plan` only print what it would cost, and None."""
    known_tracker(place.track)
    folder = out or usual_folder(study)
    if not plan:
        return run(study, folder, quiet, redo, place)
    from lorascope.studies import missing

    missing.in_folder(folder, study, redo)
    print_plan(study, folder)
    return None
