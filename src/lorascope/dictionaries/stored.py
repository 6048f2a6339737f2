"""Tensors others have stored: read without executing anything, every fault in one clear line.

Sizes are checked from each file's own header before anything is allocated for them.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lorascope.dictionaries.limits import affordable, fits, plain, plain_file, readable, unreadable
from lorascope.errors import InputError


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of one file, handed out by name; what is left over is refused.

    A tensor a reader does not know may change what the dictionary computes, so it is never
    passed over in silence.
    """

    path: Path
    tensors: dict[str, Tensor]

    def has(self, name: str) -> bool:
        """Whether a tensor of that name has not been taken yet."""
        return name in self.tensors

    def names(self, prefix: str) -> list[str]:
        """Tensors not taken yet whose names begin with `prefix`."""
        return sorted(name for name in self.tensors if name.startswith(prefix))

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

    def exponential(self, *names: str) -> Tensor:
        """exp of a vector stored as its logarithm, which must be finite: −inf is no number."""
        logarithm = self.vector(*names).float()
        broken = int((~logarithm.isfinite()).sum())
        if broken:
            raise InputError(
                f"{self.path}: {broken} of {len(logarithm)} numbers of its {names[-1]} are NaN or "
                "infinite; fetch it again"
            )
        return logarithm.exp()

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
            names = ", ".join(plain(name) for name in sorted(self.tensors)[:4])
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


def safetensors(path: Path) -> StoredTensors:
    """The tensors of a safetensors file."""
    with _there(path):
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            shapes = [(name, tuple(file.get_slice(name).get_shape())) for name in names]
        affordable(path, shapes)
        return StoredTensors(path, load_file(path))


def npz(path: Path) -> StoredTensors:
    """The arrays of a NumPy archive; pickled objects are not opened, words are passed over."""
    with _there(path):
        with zipfile.ZipFile(path) as archive:
            shapes = [found for one in archive.infolist() if (found := _array(archive, one))]
        if len(dict(shapes)) != len(shapes):
            raise unreadable(path, "it holds two arrays of one name")
        affordable(path, shapes)
        with np.load(path, allow_pickle=False) as arrays:
            return StoredTensors(path, {name: torch.from_numpy(arrays[name]) for name, _ in shapes})


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[str, tuple[int, ...]] | None:
    """Name and shape of an array of numbers, from its header alone; None for anything else.

    Raises:
        ValueError: it holds pickled objects, or other than the data its header declares.
    """
    if not entry.filename.endswith(".npy"):
        return None
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"its arrays are of version {version}, expected 1.0 or 2.0")
        shape, _, dtype = read(file)
        data = entry.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    declared = prod(shape) * dtype.itemsize
    if declared != data:
        raise ValueError(f"{plain(entry.filename)} declares {declared:,} bytes and has {data:,}")
    return (entry.filename.removesuffix(".npy"), shape) if dtype.kind in "biuf" else None


def tensors_of_pickle(path: Path) -> StoredTensors:
    """The tensors of a PyTorch file; only tensors are rebuilt, nothing else is called."""
    with _there(path):
        length = plain_file(path)
        if not zipfile.is_zipfile(path):
            raise unreadable(
                path, "it is no PyTorch file of version 1.6 or later, or holds more than tensors"
            )
        with zipfile.ZipFile(path) as archive:
            # PyTorch compresses nothing, so what a file unpacks to it also holds.
            if sum(one.file_size for one in archive.infolist()) > length:
                raise unreadable(path, "it declares more data than it has")
        fits(path, length)
        try:
            with warnings.catch_warnings(action="ignore"):  # what it thinks of odd pickles
                found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise unreadable(path, "it holds more than tensors, or is no PyTorch file") from None
        if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
            raise unreadable(path, "expected tensors by name")
        tensors = {str(name): tensor for name, tensor in found.items()}
        for name, tensor in tensors.items():
            _refuse_views(path, name, tensor)
        affordable(path, [(name, tuple(tensor.shape)) for name, tensor in tensors.items()])
        return StoredTensors(path, tensors)


def _refuse_views(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse tensors that are larger than the data stored for them."""
    strided = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not strided or tensor.is_quantized or tensor.is_nested:
        raise unreadable(path, f"{plain(name)} is sparse, quantised or without data")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise unreadable(
            path, f"{plain(name)} has shape {tuple(tensor.shape)} and fewer numbers stored"
        )


@contextmanager
def _there(path: Path) -> Iterator[None]:
    """Within the `with`, a plain file is there and every fault of it becomes one line."""
    with readable(path):
        try:
            plain_file(path)
            yield
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; fetch it again") from None


@contextmanager
def described(path: Path) -> Iterator[None]:
    """Within the `with`, tensors that do not belong together become one line naming the file."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}; fetch it again") from None
