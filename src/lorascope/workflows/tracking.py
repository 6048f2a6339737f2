"""What `--track` asks for: the curves of a stage's training, written below the run folder.

Trackers observe: a stage's key, files and numbers are the same with and without them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from lorascope.config import Settings, Subset
from lorascope.stages import Work, plain
from lorascope.training.loop import Observer, StepProgress
from lorascope.training.trackers import TensorBoard, Tracker, WandB

LOGS = "logs"


@contextmanager
def trackers(work: Work) -> Iterator[list[Observer]]:
    """The observers that write a stage's training, as its reporter says; none by default.

    Scalars of TensorBoard lie in `RUN/logs/<stage>`, offline runs of Weights & Biases in
    `RUN/logs/wandb`, each named after run and stage.

    Raises:
        InputError: the tracker's library is not installed.
    """
    if not work.reporter.track:
        yield []
        return
    observer = _Tracked(work)
    try:
        yield [observer]
    finally:
        observer.close()


class _Tracked:
    """A tracker that is opened at the first step it sees: nothing is written of no training."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tracker: Tracker | None = None

    def __call__(self, progress: StepProgress) -> None:
        if self._tracker is None:
            self._tracker = self._opened(begun=progress.step == 0)
        self._tracker(progress)

    def _opened(self, begun: bool) -> Tracker:
        work, name = self._work, self._work.stage.name
        logs = work.run / LOGS
        if work.reporter.track == "tensorboard":
            if begun:
                # Training that begins anew is another curve; training that goes on is the same.
                shutil.rmtree(logs / name, ignore_errors=True)
            return TensorBoard(logs / name)
        own = {
            key: plain(value)
            for key, value in work.stage.arguments.items()
            if isinstance(value, Settings | Subset)
        }
        title = f"{work.run.absolute().name}/{name}"
        return WandB("lorascope", logs, name=title, settings=own)

    def close(self) -> None:
        """Write what is left."""
        if self._tracker is not None:
            self._tracker.close()
