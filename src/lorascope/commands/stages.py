"""The stages of a run, for engines that make them one by one: which there are, and making one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import Json, Out, Quiet, Set, Track, known_tracker
from lorascope.commands.running import usual_folder
from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.runners import OpenedStudy
    from lorascope.stages import Graph, Stage


def stages(
    study: Annotated[Path, typer.Argument(help="A study file, or a run folder.")],
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """List a study's stages, one a line: level, done or not, name, what it reads.

    A stage can be made once all of the levels before its own are done. Of a study file, the run
    folder is prepared for `lorascope stage` if --out names one.

    **Examples**

    `lorascope stages studies/embedded.yaml --out runs/mine`

    `lorascope stages runs/mine --json`
    """
    folder = _prepared(study, set_, out)
    from lorascope.studies.opening import with_needs

    graph = with_needs(folder, _opened(folder))
    lines = [
        _line(graph, folder, level, one)
        for level, units in enumerate(graph.levels())
        for unit in units
        for one in unit
    ]
    if json_:
        say_json(lines)
        return
    for line in lines:
        fields = (line["level"], "done" if line["done"] else "todo", line["stage"])
        say(" ".join(map(str, (*fields, ",".join(line["inputs"]) or "-"))))


def _line(graph: Graph, folder: Path, level: int, one: Stage) -> dict[str, Any]:
    return {
        "level": level,
        "done": graph.is_done(folder, one.name),
        "stage": one.name,
        "made_with": one.group,
        "memory": one.need.memory,
        "gpus": one.need.gpus,
        "inputs": list(one.inputs),
        "output": str(folder / one.name),
    }


def stage(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    name: Annotated[str, typer.Argument(help="A stage, as `lorascope stages` names it.")],
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Make one stage of a run, whose inputs are finished, with those that are made together.

    Several processes, on several machines that share the folder, may make different stages at the
    same time. `lorascope report RUN` makes the page once `results` is done.

    **Example**

    `lorascope stage runs/mine measures/layers.5`
    """
    from lorascope.studies.study_files import study_of_run

    tracker = known_tracker(track)
    study_of_run(run)
    from lorascope.locking import locked
    from lorascope.progress import Reporter
    from lorascope.stages import make

    with locked(run, shared=True):
        reporter = Reporter(quiet, tracker)
        opened = _opened(run, reporter)
        make(opened.graph, run, opened.graph.unit_of(name), opened.state, reporter)
    say(str(run / name))


def slurm(
    study: Annotated[Path, typer.Argument(help="A study file, or a run folder.")],
    set_: Set = None,
    out: Out = None,
    time: Annotated[str, typer.Option(help="Limit of one stage, as sbatch takes it.")] = "04:00:00",
    threads: Annotated[int, typer.Option(min=1, help="Processor cores of one stage.")] = 4,
    parallel: Annotated[
        int, typer.Option(min=0, help="Most stages at a time; 0 for no limit.")
    ] = 0,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", help="A further option of sbatch, --partition=gpu. Repeatable."),
    ] = None,
    track: Track = None,
) -> None:
    """Write SLURM jobs for a study: an array a level of its stages, each after the one before.

    The run folder must lie on a disk that all nodes share. Run the same command again to write
    jobs for what is not finished yet.

    **Examples**

    `lorascope slurm studies/embedded.yaml --out runs/mine --sbatch=--partition=short`

    `sh runs/mine/slurm/submit.sh`
    """
    from lorascope.runners.slurm import FOLDER, Jobs, write_jobs

    tracker = known_tracker(track)
    folder = _prepared(study, set_, out)
    from lorascope.studies.opening import with_needs

    graph = with_needs(folder, _opened(folder))
    arrays = write_jobs(graph, folder, Jobs(time, threads, parallel, tuple(sbatch or ()), tracker))
    done = sum(graph.is_done(folder, one.name) for one in graph)
    say(
        f"{done} of {len(graph)} stages are finished; {len(arrays)} arrays are written. Submit with"
    )
    say(f"sh {folder / FOLDER / 'submit.sh'}")


def _opened(folder: Path, reporter: Any = None) -> OpenedStudy:
    from lorascope.progress import Reporter
    from lorascope.studies.opening import open_study

    return open_study(folder, reporter or Reporter(quiet=True))


def _prepared(study: Path, changes: list[str] | None, out: Path | None) -> Path:
    """The run folder; that of a study file is made.

    What is wrong with the study is seen before any large library is imported.
    """
    from lorascope.studies import missing
    from lorascope.studies.study_files import read_study, study_of_run

    if study.is_dir():
        if changes or out:
            raise InputError(f"{study}: a run folder has its settings; leave out --set and --out")
        missing.in_study(study_of_run(study))
        return study
    settings = read_study(study, changes or [])
    folder = out or usual_folder(settings)
    missing.in_study(settings)
    missing.in_folder(folder, settings)
    from lorascope.studies.opening import prepare

    prepare(settings, folder)
    return folder
