"""An adapter's safetensors file by modules: which tensors each has, read one module at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
INTEGERS = ("I64", "I32")


@dataclass(frozen=True)
class Stored:
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
    parts: dict[str, Stored] = field(default_factory=dict)

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
    others: tuple[Stored, ...]

    @property
    def tensors(self) -> list[Stored]:
        """All of them."""
        return [*(t for m in self.modules.values() for t in m.parts.values()), *self.others]


class WeightsFile:
    """A safetensors file that is open; a tensor is in memory only while it is looked at."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def contents(self) -> Contents:
        """Every tensor by its name, without a value."""
        modules: dict[str, Module] = {}
        others: list[Stored] = []
        for key in sorted(self._opened.keys()):
            piece = self._opened.get_slice(key)
            one = Stored(key, tuple(piece.get_shape()), str(piece.get_dtype()))
            found = _PART.fullmatch(key)
            if found is None:
                others.append(one)
                continue
            path, part = bare(found[1]), _PARTS[found[2]]
            modules.setdefault(path, Module(path)).parts[part] = one
        return Contents(modules, tuple(others))

    def read(self, one: Stored) -> Tensor:
        """The values of one tensor, on the CPU."""
        tensor: Tensor = self._opened.get_tensor(one.key)
        return tensor


@contextmanager
def open_weights(name: str, file: Path) -> Iterator[WeightsFile]:
    """Open the safetensors file of the adapter `name`.

    Raises:
        InputError: it cannot be opened, is a pointer of git-lfs, or is damaged.
    """
    refuse_pointer(name, file)
    try:
        opened = safe_open(file, framework="pt", device="cpu")
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f'adapter "{name}": {file} is truncated or damaged: fetch it again ({reason})'
        ) from error
    with opened as inside:
        yield WeightsFile(inside)


def bare(key: str) -> str:
    """A module's path without what PEFT puts before it."""
    return key.removeprefix(PREFIX)
