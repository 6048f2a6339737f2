"""The tensors of an adapter's file, looked at before any model is in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lorascope.errors import InputError

_LFS = b"version https://git-lfs.github.com/spec"


def read_weights(name: str, file: Path, *, integers: bool = False) -> dict[str, Tensor]:
    """{key: tensor} of the adapter `name`, on the CPU, as PEFT saved them.

    Args:
        integers: accept whole numbers from 0 on too, which some tuner types keep as indices.

    Raises:
        InputError: the file is damaged or holds more than tensors; a tensor is empty, holds NaN or
            infinity, or is of a dtype that no weight has.
    """
    refuse_pointer(name, file)
    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f'adapter "{name}": {file} is truncated or damaged: fetch it again ({reason})'
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise InputError(f'adapter "{name}": {file} holds more than tensors: it is not loaded')
    if not weights:
        raise InputError(f'adapter "{name}": {file} holds no tensors: save the adapter again')
    _refuse_unusable(name, file, weights, integers)
    return weights


def refuse_pointer(name: str, file: Path) -> None:
    """Refuse a file that cannot be opened, or that git-lfs left in place of the weights.

    Raises:
        InputError: it is one of these.
    """
    try:
        with file.open("rb") as start:
            pointer = start.read(len(_LFS)) == _LFS
    except OSError as error:
        raise InputError(
            f'adapter "{name}": {file} cannot be read ({error.strerror}): check its permissions'
        ) from error
    if pointer:
        raise InputError(
            f'adapter "{name}": {file} is a pointer of git-lfs, not the weights: run git lfs pull '
            "in the clone, or fetch it again"
        )


def _refuse_unusable(name: str, file: Path, weights: dict[str, Tensor], integers: bool) -> None:
    empty = [key for key, tensor in weights.items() if not tensor.numel()]
    if empty:
        raise InputError(
            f'adapter "{name}": {len(empty)} of the {len(weights)} tensors in {file} are empty '
            f"(first: {empty[0]}): it was saved under DeepSpeed ZeRO-3 without gathering them; "
            "save it again with stage3_gather_16bit_weights_on_model_save, or convert the "
            "checkpoint with zero_to_fp32.py"
        )
    # A few stored bytes can stand for more values than fit into memory.
    spread = [key for key, tensor in weights.items() if not _stored(tensor)]
    if spread:
        raise InputError(
            f'adapter "{name}": {spread[0]} in {file} is sparse or repeats stored values: save '
            "every tensor whole (.to_dense().contiguous())"
        )
    foreign = [
        key
        for key, tensor in weights.items()
        if not (tensor.is_floating_point() or (integers and _indices(tensor)))
    ]
    if foreign:
        raise InputError(
            f'adapter "{name}": {foreign[0]} in {file} is of dtype {weights[foreign[0]].dtype}, '
            "which no weight of an adapter has: save it in float32, float16 or bfloat16"
        )
    bad = [key for key, tensor in weights.items() if not _finite(tensor)]
    if bad:
        raise InputError(
            f'adapter "{name}": {len(bad)} of the {len(weights)} tensors in {file} hold NaN or '
            f"infinity (first: {bad[0]}): its training diverged; give an earlier checkpoint"
        )


def _stored(tensor: Tensor) -> bool:
    """Whether every value has its own place in the file."""
    if tensor.layout is not torch.strided:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _indices(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.int32, torch.int64) and bool((tensor >= 0).all())


def _finite(tensor: Tensor) -> bool:
    # Kernels for eight-bit floats lack the test.
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())
