"""The stages of a study as SLURM jobs: one array a level of the graph, each after the one before.

What is written is plain text to be read and changed: a script and a list of stages for each level,
and `submit.sh`, which submits them with `afterok` dependencies. Submitted again it goes on where
the last jobs stopped: making a finished stage does nothing.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.runs import write_atomically
from lorascope.stages import Graph, Stage

FOLDER = "slurm"
# Where a stage does not say what it takes.
_MEMORY = 8_000_000_000


@dataclass(frozen=True)
class Jobs:
    """How jobs are asked for.

    Attributes:
        time: limit of one task, as `sbatch --time` takes it.
        threads: processor cores of one task.
        parallel: most tasks of an array at a time; 0 for no limit.
        further: further options of sbatch, `--partition=gpu` for one.
        track: where training is written beside the stages, as the option --track says.
    """

    time: str = "04:00:00"
    threads: int = 4
    parallel: int = 0
    further: tuple[str, ...] = ()
    track: str = ""


def write_jobs(graph: Graph, run: Path, jobs: Jobs) -> list[list[str]]:
    """Write scripts into `RUN/slurm` and return the stages of each array.

    Args:
        run: the prepared run folder, on a disk that all nodes share.
    """
    run = run.absolute()
    folder = run / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    arrays: list[list[str]] = []
    submitted = ["#!/bin/sh", "# Submits what is not finished; run it again to go on.", "set -eu"]
    submitted += ["after="]
    for level, units in enumerate(graph.levels()):
        todo = [unit for unit in units if graph.undone(run, unit)]
        if not todo:
            continue
        name = f"level-{level:02d}"
        stages = [unit[0].name for unit in todo]
        write_atomically(folder / f"{name}.txt", "".join(f"{one}\n" for one in stages))
        write_atomically(folder / f"{name}.sbatch", _array(name, todo, run, jobs))
        submitted.append(_submit(folder / f"{name}.sbatch"))
        arrays.append(stages)
    write_atomically(folder / "report.sbatch", _report(run, jobs))
    submitted += [_submit(folder / "report.sbatch"), 'echo "submitted; the last job is $after"']
    write_atomically(folder / "submit.sh", "\n".join(submitted) + "\n")
    (folder / "submit.sh").chmod(0o755)
    return arrays


def _submit(script: Path) -> str:
    depends = "${after:+--dependency=afterok:$after --kill-on-invalid-dep=yes}"
    return f"after=$(sbatch --parsable {depends} {shlex.quote(str(script))})"


def _head(name: str, run: Path, jobs: Jobs, log: str) -> list[str]:
    return [
        "#!/bin/sh",
        f"#SBATCH --job-name={run.name}-{name}",
        f"#SBATCH --chdir={Path.cwd()}",
        f"#SBATCH --output={run / FOLDER / 'logs' / log}",
        *(f"#SBATCH {option}" for option in jobs.further),
    ]


def _array(name: str, units: Sequence[Sequence[Stage]], run: Path, jobs: Jobs) -> str:
    needs = [one.need for unit in units for one in unit]
    memory = max(need.memory for need in needs) or _MEMORY
    throttle = f"%{jobs.parallel}" if jobs.parallel else ""
    track = f" --track {jobs.track}" if jobs.track else ""
    lines = _head(name, run, jobs, f"{name}-%a.log")
    lines += [
        f"#SBATCH --array=1-{len(units)}{throttle}",
        f"#SBATCH --time={jobs.time}",
        f"#SBATCH --cpus-per-task={jobs.threads}",
        f"#SBATCH --mem={-(-memory // 1_000_000)}M",
        *(["#SBATCH --gpus=1"] if max(need.gpus for need in needs) > 0 else []),
        "set -eu",
        f"export OMP_NUM_THREADS={jobs.threads}",
        f'stage=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(run / FOLDER / name))}.txt)',
        f'exec {_command()} stage --quiet{track} {shlex.quote(str(run))} "$stage"',
    ]
    return "\n".join(lines) + "\n"


def _report(run: Path, jobs: Jobs) -> str:
    lines = _head("report", run, jobs, "report.log")
    lines += ["#SBATCH --time=00:30:00", "set -eu"]
    lines += [f"exec {_command()} report {shlex.quote(str(run))}"]
    return "\n".join(lines) + "\n"


def _command() -> str:
    """This installation, so that nodes run what wrote the scripts."""
    return f"{shlex.quote(sys.executable)} -m lorascope"
