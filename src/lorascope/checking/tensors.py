"""An adapter's safetensors file by modules: which tensors each has, read one module at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.adapter_weights import refuse_pointer

PREFIX = "base_model.model."
# How PEFT ends the names of a LoRA layer's tensors, and what each is.
_PARTS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_embedding_A": "A",
    "lora_embedding_B": "B",
    "lora_A": "A",
    "lora_B": "B",
    "lora_B.bias": "bias",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
_PART = re.compile(rf"(.+)\.({'|'.join(map(re.escape, sorted(_PARTS, key=len, reverse=True)))})")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorHeader:
    """One tensor as the file's header tells of it.

    Attributes:
        key: its name in the file.
        shape: its sizes.
        dtype: in safetensors' words, "BF16".
    """

    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Module:
    """The LoRA tensors of one module.

    Attributes:
        path: in the bare model, as PEFT wrote it.
        parts: what of "A", "B", "bias" and "magnitude" it has.
    """

    path: str
    parts: dict[str, TensorHeader] = field(default_factory=dict)

    @property
    def is_pair(self) -> bool:
        """Whether it has both factors, as matrices that fit each other."""
        A, B = self.parts.get("A"), self.parts.get("B")
        if A is None or B is None or len(A.shape) != 2 or len(B.shape) != 2:
            return False
        return A.shape[0] == B.shape[1] and 0 not in (*A.shape, *B.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(out, r, in); only where `is_pair`."""
        return self.parts["B"].shape[0], self.parts["A"].shape[0], self.parts["A"].shape[1]

    @property
    def kind(self) -> str:
        """The path with every number as *: modules of one kind are held against one another."""
        return _NUMBER.sub("*", f".{self.path}.")[1:-1]


@dataclass(frozen=True)
class Contents:
    """What a weights file holds, from its header alone.

    Attributes:
        modules: {path: LoRA tensors}.
        others: every other tensor.
    """

    modules: dict[str, Module]
    others: tuple[TensorHeader, ...]

    @property
    def tensors(self) -> list[TensorHeader]:
        """All of them."""
        return [*(t for m in self.modules.values() for t in m.parts.values()), *self.others]


class WeightsFile:
    """A safetensors file that is open; a tensor is in memory only while it is looked at.

    Tensors are read from their place in the file. Mapped into memory, as the library gives them,
    every page that was touched would stay.
    """

    def __init__(self, file: BufferedReader, header: dict[str, Any], start: int) -> None:
        self._file = file
        self._start = start
        self._places = {key: tuple(one["data_offsets"]) for key, one in header.items()}
        self._stored = [
            TensorHeader(key, tuple(one["shape"]), str(one["dtype"]))
            for key, one in sorted(header.items())
        ]

    def contents(self) -> Contents:
        """Every tensor by its name, without a value."""
        modules: dict[str, Module] = {}
        others: list[TensorHeader] = []
        for one in self._stored:
            found = _PART.fullmatch(one.key)
            if found is None:
                others.append(one)
                continue
            path, part = bare(found[1]), _PARTS[found[2]]
            modules.setdefault(path, Module(path)).parts[part] = one
        return Contents(modules, tuple(others))

    def read(self, one: TensorHeader) -> Tensor:
        """The values of one tensor, on the CPU; of a dtype that torch lacks its bytes."""
        begin, end = self._places[one.key]
        raw = bytearray(end - begin)
        self._file.seek(self._start + begin)
        if self._file.readinto(raw) != len(raw):
            raise EOFError(f"{one.key} ends beyond the file")
        dtype = _DTYPES.get(one.dtype)
        if not raw:
            return torch.empty(one.shape, dtype=dtype or torch.uint8)
        found = torch.frombuffer(raw, dtype=dtype or torch.uint8)
        return found if dtype is None else found.reshape(one.shape)


@contextmanager
def open_weights(name: str, file: Path) -> Iterator[WeightsFile]:
    """Open the safetensors file of the adapter `name`.

    Raises:
        InputError: it cannot be opened, is a pointer of git-lfs, or is damaged.
    """
    refuse_pointer(name, file)
    with file.open("rb") as opened:
        try:
            # The library checks the header: places, sizes and what lies between.
            with safe_open(file, framework="pt", device="cpu"):
                length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f'adapter "{name}": {file} is truncated or damaged: fetch it again ({reason})'
            ) from error
        header.pop("__metadata__", None)
        yield WeightsFile(opened, header, 8 + length)


def bare(key: str) -> str:
    """A module's path without what PEFT puts before it."""
    return key.removeprefix(PREFIX)
