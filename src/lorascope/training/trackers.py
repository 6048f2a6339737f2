"""Observers that write a run's scalars to TensorBoard or Weights & Biases.

They look at a run as every observer does, from outside the loop: weights are bit for bit the same
with and without them. Nothing is sent anywhere unless a `WandB` is made with `mode="online"`.

    with TensorBoard("logs/relu") as tracker:
        fit(ReLU(n_latents=4096), rows, observers=[tracker])

Both need `pip install 'lorascope[trackers]'`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from lorascope.errors import InputError
from lorascope.foreign import local_path
from lorascope.training.loop import StepProgress

PathLike = str | os.PathLike[str]


class Tracker(ABC):
    """An observer that writes every so many steps, and the last; to be closed afterwards.

    Args:
        every: steps between two that are written. Scalars stay on their device in between.

    Raises:
        InputError: `every` is less than 1.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise InputError(f"every {every} steps: give 1 or more")
        self.every = every

    def __call__(self, progress: StepProgress) -> None:
        """Write this step's scalars if it is its turn; steps are counted from 1."""
        if progress.last or (progress.step + 1) % self.every == 0:
            found = {name: float(value) for name, value in progress.scalars.items()}
            self.write(found | {"seconds": progress.seconds}, progress.step + 1)

    @abstractmethod
    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the scalars of one step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left and let go of the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class TensorBoard(Tracker):
    """Scalars as TensorBoard's event files.

    Args:
        folder: where they go; `tensorboard --logdir` of it or of a folder above it shows them.
        every: as for every tracker.

    Raises:
        InputError: tensorboard is not installed.
    """

    def __init__(self, folder: PathLike, every: int = 10) -> None:
        super().__init__(every)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard") from None
        self._writer: Any = SummaryWriter(str(local_path(os.fspath(folder))))

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the scalars of one step."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left and let go of the files."""
        self._writer.close()


class WandB(Tracker):
    """Scalars as a run of Weights & Biases, offline unless asked otherwise.

    Args:
        project: the project it belongs to.
        folder: where its files go, below `wandb/`; an offline run is sent later by `wandb sync`.
        name: of the run.
        settings: plain data shown beside it, `Fitting().plain()` for instance.
        mode: "online" sends scalars as they come.
        every: as for every tracker.

    Raises:
        InputError: wandb is not installed.
    """

    def __init__(
        self,
        project: str,
        folder: PathLike = ".",
        *,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        mode: Literal["offline", "online"] = "offline",
        every: int = 10,
    ) -> None:
        super().__init__(every)
        try:
            import wandb
        except ImportError:
            raise _missing("wandb") from None
        place = local_path(os.fspath(folder))
        place.mkdir(parents=True, exist_ok=True)
        self.run: Any = wandb.init(
            project=project,
            dir=str(place),
            name=name,
            config=dict(settings or {}),
            mode=mode,
            # Beside any other run of this process: a training of its own is a run of its own.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the scalars of one step."""
        self.run.log(dict(scalars), step=step)

    def close(self) -> None:
        """End the run."""
        self.run.finish()


def _missing(name: str) -> InputError:
    return InputError(f"{name} is not installed: pip install 'lorascope[trackers]'")
