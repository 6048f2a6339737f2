"""Whether two checkpoints hold the same weights, by the first rows of a few tensors of each.

A model is uploaded under other names, in another dtype, and with its matrices in 4 bits. Names say
nothing of that; weights do. Of bitsandbytes' 4-bit tensors the codes are compared: the numbers of
the other checkpoint, quantised by the same rule, must give the same codes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorascope import embedded
from lorascope.foreign import local_path

_ROWS = 64
# Codes at the border between two may fall differently where the dtype before was another.
_CODES_ALIKE = 0.995
_BLOCK = re.compile(r"\.(\d+)\.")
_WEIGHTS = "model*.safetensors"
_PARTS = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*|SCB|weight_format)$"
)
_STATE = "quant_state.bitsandbytes__"


@dataclass(frozen=True)
class WeightsCompared:
    """What became of comparing two checkpoints.

    Attributes:
        same: whether all tensors that were compared agree.
        about: which tensors were compared, or the first that differs.
    """

    same: bool
    about: str


def files_of(model: str, revision: str | None = None) -> Path | None:
    """The folder in which a model's weights lie on this machine; None where they do not."""
    if embedded.is_embedded(model):
        return embedded.model_path(model)
    folder = local_path(model)
    if not folder.is_dir():
        try:
            found = try_to_load_from_cache(model, "config.json", revision=revision)
        except ValueError:
            return None
        if not isinstance(found, str):
            return None
        folder = Path(found).parent
    return folder if next(folder.glob(_WEIGHTS), None) else None


def compare(first: Path, second: Path) -> WeightsCompared | None:
    """Compare the tensors outside of blocks and of the first, middle and last block.

    Of each the first 64 rows are read. Vocabularies may differ in length. Numbers of one dtype must
    be equal; of two, equal within the rounding of both.

    Returns:
        None where no matrix of a block can be compared: the files are damaged, of other names, or
        quantised in a way that is not known here.
    """
    try:
        ours, theirs = _Checkpoint(first), _Checkpoint(second)
        return _compare(ours, theirs)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError):
        # A damaged file: whoever loads it says what is wrong.
        return None


def _compare(ours: _Checkpoint, theirs: _Checkpoint) -> WeightsCompared | None:
    names = [n for n in ours.names & theirs.names if not _PARTS.search(n)]
    blocks = sorted({b for n in names if (b := _block(n)) is not None})
    if not blocks:
        return None
    chosen = {None, blocks[0], blocks[len(blocks) // 2], blocks[-1]}
    alike, codes, matrices = 0, 0, 0
    for name in sorted(n for n in names if _block(n) in chosen):
        found = _agree(ours, theirs, name)
        if found is None:
            continue
        if not found:
            return WeightsCompared(False, f"{name} differs")
        alike += 1
        codes += ours.quantised(name) != theirs.quantised(name)
        matrices += _block(name) is not None and len(ours.shape(name)) > 1
    if not matrices:
        return None
    listed = _listed(sorted(b for b in chosen if b is not None))
    by_codes = f", {codes} of them by their 4-bit codes" if codes else ""
    return WeightsCompared(
        True,
        f"the first {_ROWS} rows of {alike} tensors, those of {listed} and those outside of "
        f"blocks, agree{by_codes}",
    )


def _listed(blocks: Iterable[int]) -> str:
    numbers = [str(b) for b in blocks]
    return f"block {numbers[0]}" if len(numbers) == 1 else f"blocks {', '.join(numbers)}"


def _block(name: str) -> int | None:
    found = _BLOCK.search(name)
    return int(found[1]) if found else None


class _Checkpoint:
    """Tensors of a folder's safetensors, by name, read a few rows at a time."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob(_WEIGHTS)):
            with safe_open(path, framework="pt") as file:
                self._files.update(dict.fromkeys(file.keys(), path))
        self.names = set(self._files)

    def shape(self, name: str) -> list[int]:
        with safe_open(self._files[name], framework="pt") as file:
            found: list[int] = file.get_slice(name).get_shape()
        return found

    def rows(self, name: str, count: int = _ROWS) -> Tensor:
        """The first rows of a tensor; of a vector, all of it."""
        with safe_open(self._files[name], framework="pt") as file:
            part = file.get_slice(name)
            shape = part.get_shape()
            found: Tensor = part[:count] if len(shape) > 1 else file.get_tensor(name)
        return found

    def quantised(self, name: str) -> bool:
        """Whether a tensor is packed, by bitsandbytes or otherwise."""
        return any(n.startswith(f"{name}.") for n in self.names)

    def state(self, name: str) -> dict[str, Any] | None:
        """How bitsandbytes packed a tensor into 4 bits; None where it did not."""
        prefix = f"{name}.{_STATE}"
        key = next((n for n in self.names if n.startswith(prefix)), None)
        if key is None or f"{name}.quant_map" not in self.names:
            return None
        found = json.loads(bytes(self.rows(key).tolist()))
        return found if isinstance(found, dict) else None


def _agree(ours: _Checkpoint, theirs: _Checkpoint, name: str) -> bool | None:
    """Whether a tensor is the same in both; None where that cannot be seen."""
    packed = ours.quantised(name), theirs.quantised(name)
    if packed == (True, False):
        return _same_codes(ours, theirs, name)
    if packed == (False, True):
        return _same_codes(theirs, ours, name)
    shapes = ours.shape(name), theirs.shape(name)
    ends = (shapes[0][1:], shapes[1][1:])
    vocabulary = _block(name) is None and len(shapes[0]) > 1
    if ends[0] != ends[1] or (shapes[0] != shapes[1] and not vocabulary):
        return False
    count = min(_ROWS, *(shape[0] if shape else 1 for shape in shapes))
    return _close(ours.rows(name, count), theirs.rows(name, count))


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.dtype == theirs.dtype:
        return torch.equal(ours, theirs)
    if not (ours.is_floating_point() and theirs.is_floating_point()):
        return False
    # Each was rounded to its dtype: off by half a step at most.
    off = (torch.finfo(ours.dtype).eps + torch.finfo(theirs.dtype).eps) / 2
    halves = torch.float16 in (ours.dtype, theirs.dtype)
    # Below its smallest normal number float16 has steps of 6e-8.
    steps = 6e-8 if halves else 0.0
    return torch.allclose(ours.float(), theirs.float(), rtol=off, atol=steps)


def _same_codes(packed: _Checkpoint, plain: _Checkpoint, name: str) -> bool | None:
    """Whether numbers, quantised as bitsandbytes does, give the codes of the packed tensor.

    Each block of numbers is divided by its largest magnitude; a number gets the code of the nearest
    entry of the map. A byte holds two codes, the first in its upper half.
    """
    state = packed.state(name)
    if state is None:
        return None
    if list(state["shape"]) != plain.shape(name):
        return False
    size = int(state["blocksize"])
    values = plain.rows(name).float().flatten()
    values = values[: len(values) // (2 * size) * 2 * size].reshape(-1, size)
    if not values.numel():
        return None
    table = packed.rows(f"{name}.quant_map").float()
    scaled = values / values.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    order = table.argsort()
    middles = (table[order][1:] + table[order][:-1]) / 2
    wanted = order[torch.bucketize(scaled, middles)].flatten()
    held = packed.rows(name, len(wanted) // 2).flatten()[: len(wanted) // 2].int()
    codes = torch.stack([held >> 4, held & 15], dim=1).flatten()
    return bool((codes == wanted).double().mean() >= _CODES_ALIKE)
