"""Where a run in progress is kept, so that it can go on bit for bit as if it had never stopped."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from lorascope.training.loop import History, StepProgress


class Checkpoint:
    """The state of one run in a file: parameters, buffers, optimiser, history.

    As an observer it saves after `seconds` since it last did; what is saved is the state between
    two steps.

    Args:
        path: the file; written under another name and renamed.
        identity: hash of everything the run depends on; a file of another identity is not used.
        seconds: least time between two saves; 0 saves after every step.
    """

    def __init__(self, path: Path, identity: str, seconds: float = 60.0) -> None:
        self._path, self._identity, self._seconds = path, identity, seconds
        self._saved = time.monotonic()

    def bind(self, module: nn.Module, optimizer: Optimizer, history: History) -> None:
        """Name what is saved and restored."""
        self._module, self._optimizer, self._history = module, optimizer, history

    def __call__(self, progress: StepProgress) -> None:
        if not progress.last and time.monotonic() - self._saved >= self._seconds:
            self.save()
            self._saved = time.monotonic()

    def save(self) -> None:
        """Write the state as it is now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        state = {
            "identity": self._identity,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "history": self._history.records,
        }
        torch.save(state, partial)
        partial.replace(self._path)

    def restore(self) -> int:
        """Put a saved state back, if there is one of this run; returns the steps already done.

        A file that is broken or of another run counts as none.
        """
        try:
            device = next(self._module.parameters()).device
            state = torch.load(self._path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return 0
        if not isinstance(state, dict) or state.get("identity") != self._identity:
            return 0
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._history.records[:] = state["history"]
        return len(self._history.records)

    def remove(self) -> None:
        """The run is finished: nothing needs to be kept."""
        self._path.unlink(missing_ok=True)
