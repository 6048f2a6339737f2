"""LoRA factors in files of diff-interpretation-tuning, written out as adapters of PEFT.

Such a `.pt` file (arXiv 2510.05092) is a list. Each entry has under `weight_diff`, for each linear
map by its name in the model, a pair (A, B) of shapes [rank, out] and [in, rank]; the update of the
map is (B A)ᵀ/rank. Only tensors are rebuilt from the file; nothing else in it is called.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from lorascope.errors import InputError
from lorascope.foreign import one_line, require_plain
from lorascope.models.places import CONFIG_FILE

_WEIGHTS = "adapter_model.safetensors"
_ADVICE = "fetch it again, or give another file"


def write_adapter(file: Path, number: int, base: str, folder: Path) -> Path:
    """Write an entry of a file of weight differences as an adapter; what is there is kept.

    Args:
        file: the `.pt` file.
        number: of the entry, from 0.
        base: the model that it changes, for the adapter's configuration.
        folder: becomes the adapter's.

    Returns:
        The folder, which PEFT and `lorascope.load` open.

    Raises:
        InputError: the file is unreadable or holds something else, or has no such entry.
    """
    if (folder / CONFIG_FILE).is_file():
        return folder
    factors = _factors(file, number)
    rank = next(iter(factors.values()))[0].shape[0]
    # PEFT adds B A · alpha/r with A [r, in] and B [out, r]: the file's B and A, transposed.
    tensors = {}
    for module, (A, B) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = B.T.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = A.T.contiguous()
    config = LoraConfig(
        r=rank,
        lora_alpha=1,
        target_modules=sorted(factors),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    # The configuration goes last: with it the folder counts as an adapter.
    config.save_pretrained(str(folder))
    return folder


def require_entries(file: Path, numbers: Iterable[int]) -> None:
    """Refuse a file of weight differences that lacks one of these entries.

    Raises:
        InputError: the file is unreadable or holds something else, or has no such entry.
    """
    _require(file, len(_entries(file)), numbers)


def _require(file: Path, held: int, numbers: Iterable[int]) -> None:
    for number in numbers:
        if not 0 <= number < held:
            raise InputError(f"{file}: has no entry {number}; it has {held}, counted from 0")


def _factors(file: Path, number: int) -> dict[str, tuple[Tensor, Tensor]]:
    """{module: (A [rank, out], B [in, rank])} of one entry, checked."""
    entries = _entries(file)
    _require(file, len(entries), [number])
    entry = entries[number]
    found = entry.get("weight_diff") if isinstance(entry, dict) else None
    if not isinstance(found, dict) or not found:
        raise InputError(f"{file}: entry {number} has no weight_diff; {_ADVICE}")
    ranks = set()
    for module, pair in found.items():
        if not _is_pair(pair):
            raise InputError(
                f"{file}: entry {number}, {module}: expected factors [rank, out] and [in, rank]; "
                f"{_ADVICE}"
            )
        ranks.add(pair[0].shape[0])
    if len(ranks) > 1:
        raise InputError(f"{file}: entry {number} has ranks {sorted(ranks)}; {_ADVICE}")
    return {str(module): (pair[0], pair[1]) for module, pair in found.items()}


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and all(isinstance(one, Tensor) and one.ndim == 2 and one.numel() for one in pair)
        and pair[0].shape[0] == pair[1].shape[1]
        and all(_is_whole(one) for one in pair)
    )


def _is_whole(tensor: Tensor) -> bool:
    """Whether every number of a matrix is stored: a view of stride 0 may claim any size."""
    plain = tensor.is_floating_point() and tensor.layout == torch.strided
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _entries(file: Path) -> list[Any]:
    require_plain(file)
    if not file.exists():
        raise InputError(f"{file}: no such file; check the path")
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file}: no PyTorch file of version 1.6 or later; {_ADVICE}")
    with zipfile.ZipFile(file) as archive:
        # PyTorch compresses nothing, so what a file unpacks to it also holds.
        if sum(one.file_size for one in archive.infolist()) > file.stat().st_size:
            raise InputError(f"{file}: declares more data than it has; {_ADVICE}")
    with one_line(file, _ADVICE), warnings.catch_warnings(action="ignore"):
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise InputError(f"{file}: holds more than tensors and plain data; {_ADVICE}") from None
    if not isinstance(found, list):
        raise InputError(f"{file}: expected a list of weight differences; {_ADVICE}")
    return found
