"""Whether an adapter's tensors change anything, told without running a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import PeftModel
from torch import Tensor

_PREFIX = "base_model.model."
_MAGNITUDE = ".lora_magnitude_vector"
_FACTORS = ("lora_embedding_A", "lora_embedding_B", "lora_A", "lora_B")


def changes_something(
    peft: PeftModel, peft_name: str, weights: Mapping[str, Tensor], originals: Mapping[str, Tensor]
) -> bool:
    """Whether any module's update is other than zero.

    Args:
        weights: {key: tensor} of the adapter, as the model names them.
        originals: the bare model's parameters; those of a model without weights count as changed.
    """
    for key, tensor in weights.items():
        factor = next((f for f in _FACTORS if f".{f}" in key), None)
        if factor is None:
            original = originals.get(key.removeprefix(_PREFIX).replace(_MAGNITUDE, ".weight"))
            if original is None or _differs(tensor, original.detach(), _MAGNITUDE in key):
                return True
        elif factor.endswith("_B") and _acts(weights, key, factor):
            path = key.split(f".{factor}")[0]
            scale = getattr(peft.get_submodule(path), "scaling", {}).get(peft_name, 1.0)
            if scale:
                return True
    return False


def same_values(tensor: Tensor, original: Tensor) -> bool:
    """Whether two tensors of one shape are equal as far as the coarser of their types can tell."""
    coarser = max((tensor.dtype, original.dtype), key=lambda dtype: torch.finfo(dtype).eps)
    ours = original.detach().to(coarser)
    return torch.equal(tensor.to(device=ours.device, dtype=coarser), ours)


def _acts(weights: Mapping[str, Tensor], key: str, factor: str) -> bool:
    """Whether B, or B · A where A is known, can be other than zero."""
    B = weights[key]
    A = weights.get(key.replace(factor, f"{factor.removesuffix('_B')}_A"))
    if A is None or A.ndim != 2 or B.ndim != 2 or B.shape[1] != A.shape[0]:
        return bool(B.any()) and (A is None or bool(A.any()))
    return bool((B.ne(0).any(0) & A.ne(0).any(1).to(B.device)).any())


def _differs(tensor: Tensor, original: Tensor, magnitude: bool) -> bool:
    """Whether a module saved whole, or a DoRA magnitude, is other than the base gives."""
    if original.is_meta:
        return True
    if not magnitude:
        return tensor.shape != original.shape or not same_values(tensor, original)
    # a DoRA magnitude starts as the norms of the weight along one of its axes
    norms = [original.float().norm(dim=axis) for axis in range(original.ndim)]
    found = tensor.flatten().float().to(original.device)
    return not any(
        norm.shape == found.shape and torch.allclose(norm, found, rtol=1e-2) for norm in norms
    )
