"""What others have stored: read without executing anything, every fault in one clear line."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lorascope.errors import InputError


@dataclass(frozen=True)
class Stored:
    """The tensors of one file, handed out by name; what is left over is refused.

    A tensor a reader does not know may change what the dictionary computes, so it is never
    passed over in silence.
    """

    path: Path
    tensors: dict[str, Tensor]

    def has(self, name: str) -> bool:
        """Whether a tensor of that name has not been taken yet."""
        return name in self.tensors

    def matrix(self, *names: str) -> Tensor:
        """The first of the named tensors that is there, which must have two axes."""
        return self._take(names, 2)

    def vector(self, *names: str) -> Tensor:
        """The first of the named tensors that is there, which must have one axis."""
        return self._take(names, 1)

    def number(self, name: str) -> float:
        """A tensor of one entry."""
        found = self._take((name,), None)
        if found.numel() != 1:
            raise InputError(
                f"{self.path}: {name} has shape {tuple(found.shape)}, expected one number"
            )
        return float(found)

    def leave(self, *names: str) -> None:
        """Tensors that encoding and decoding do not use."""
        for name in names:
            self.tensors.pop(name, None)

    def refuse_rest(self) -> None:
        """Refuse tensors nobody has taken.

        Raises:
            InputError: names them.
        """
        if self.tensors:
            names = ", ".join(sorted(self.tensors)[:4])
            raise InputError(
                f"{self.path}: holds {names}, which this format's dictionaries do not have; "
                "it cannot be read without knowing what they do"
            )

    def _take(self, names: tuple[str, ...], axes: int | None) -> Tensor:
        name = next((name for name in names if name in self.tensors), None)
        if name is None:
            raise InputError(
                f"{self.path}: lacks tensor {' or '.join(map(repr, names))}; fetch it again"
            )
        found = self.tensors.pop(name)
        if axes is not None and found.ndim != axes:
            raise InputError(
                f"{self.path}: {name} has shape {tuple(found.shape)}, expected "
                f"{axes} {'axis' if axes == 1 else 'axes'}; fetch it again"
            )
        if axes is not None and not found.is_floating_point():
            raise InputError(
                f"{self.path}: {name} holds {str(found.dtype).removeprefix('torch.')}, "
                "expected floating-point numbers; fetch it again"
            )
        return found


def settings(path: Path) -> dict[str, Any]:
    """The keys and values of a JSON file.

    Raises:
        InputError: it is missing, broken, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, and the weights beside it cannot be read without it; fetch it"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected keys and values; fetch it again")
    return found


def safetensors(path: Path) -> Stored:
    """The tensors of a safetensors file."""
    try:
        return Stored(path, load_file(path))
    except (SafetensorError, OSError, KeyError) as error:
        raise _unreadable(path, error) from None


def npz(path: Path) -> Stored:
    """The arrays of a NumPy archive; pickled objects are not opened, words are passed over."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        kept = {name: torch.from_numpy(a) for name, a in arrays.items() if a.dtype.kind in "biuf"}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from None
    return Stored(path, kept)


def tensors_of_pickle(path: Path) -> Stored:
    """The tensors of a PyTorch file; only tensors are rebuilt, nothing else is called."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what it thinks of odd pickles
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise _unreadable(path, "it holds more than tensors, or is no PyTorch file") from None
    except Exception as error:  # a broken file may make the unpickler fail in any way
        raise _unreadable(path, error) from None
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise _unreadable(path, "expected tensors by name")
    return Stored(path, {str(name): tensor for name, tensor in found.items()})


@contextmanager
def described(path: Path) -> Iterator[None]:
    """Within the `with`, tensors that do not belong together become one line naming the file."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}; fetch it again") from None


def _unreadable(path: Path, error: Exception | str) -> InputError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{path}: cannot be read ({first}); fetch it again")
