"""Adapters written tensor by tensor, so that every number of theirs is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

PREFIX = "base_model.model.model.layers"


def write(folder: Path, tensors: dict[str, Tensor], **fields: Any) -> Path:
    """A PEFT folder of these tensors, keys as in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def factors(
    seed: int = 0,
    layers: int = 12,
    r: int = 4,
    out: int = 48,
    width: int = 32,
    module: str = "self_attn.q_proj",
) -> dict[str, Tensor]:
    """Gaussian factors of one module in every layer."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(layers):
        path = f"{PREFIX}.{layer}.{module}"
        found[f"{path}.lora_A.weight"] = torch.randn(r, width, generator=random)
        found[f"{path}.lora_B.weight"] = 0.1 * torch.randn(out, r, generator=random)
    return found
