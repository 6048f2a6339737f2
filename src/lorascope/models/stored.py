"""How a model's weights are stored or to be held: plain numbers, or fewer bits by a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from lorascope.errors import InputError
from lorascope.models.gguf_files import gguf_of, quantisation

# Held in fewer bits as they are loaded: 4-bit NormalFloat (QLoRA's) and LLM.int8().
FEWER_BITS = ("nf4", "int8")
# What transformers needs to read weights that were stored in quantised form.
_PACKAGES = {"bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel"}
_PACKAGES |= {"torchao": "torchao"}


def computing_dtype(dtype: str) -> torch.dtype:
    """The type that a CPU computes in under a setting of dtype."""
    return torch.float32 if dtype in ("auto", *FEWER_BITS) else getattr(torch, dtype)


def quantised_by(config: PreTrainedConfig) -> str:
    """How the weights are stored in quantised form; nothing where they are not."""
    found: Any = getattr(config, "quantization_config", None)
    if found is None:
        return ""
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method) or "unknown")


def require_package(model: str, config: PreTrainedConfig) -> None:
    """Refuse weights in quantised form where what reads them is not installed.

    Raises:
        InputError: names the package.
    """
    method = quantised_by(config)
    package = _PACKAGES.get(method)
    if package is not None and importlib.util.find_spec(package) is None:
        raise InputError(
            f'the weights of model "{model}" are stored in quantised form ({method}) and the '
            f"package {package} is not installed: install it, or give the unquantised model"
        )


def in_fewer_bits(model: str, dtype: str, config: PreTrainedConfig) -> BitsAndBytesConfig:
    """What transformers quantises linear maps by as it loads them; sums stay in float32 or bf16.

    Args:
        dtype: one of `FEWER_BITS`.

    Raises:
        InputError: bitsandbytes is not installed, or the weights are stored in quantised form.
    """
    if method := quantised_by(config):
        raise InputError(
            f'dtype "{dtype}": the weights of model "{model}" are stored in quantised form '
            f"({method}) already; leave dtype out"
        )
    if gguf_of(model) is not None:
        raise InputError(f'dtype "{dtype}": "{model}" is a GGUF file; use float32 or bfloat16')
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f'dtype "{dtype}" needs the package bitsandbytes, which is not installed: '
            "pip install 'lorascope[bits]', or use float32, bfloat16 or float16"
        )
    if dtype == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )


def as_computed(model: PreTrainedModel) -> PreTrainedModel:
    """The model as its numbers say it, whatever way they were stored in.

    A model read from a GGUF file is float again: transformers keeps it marked as quantised, and
    refuses to save it for that. On processors with AVX-512 BF16 bitsandbytes packs 4-bit maps at
    the first pass and multiplies in bfloat16, whatever type it was told to compute in, and what it
    unpacks is not what it packed; these maps stay as they were read and are multiplied in the type
    that was asked for.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    config: Any = model.config
    if quantised_by(config) == "gguf":
        del config.quantization_config
        # Marks on the model itself; `getattr`, since transformers sets them where it quantises.
        for mark in ("hf_quantizer", "quantization_method"):
            if getattr(model, mark, None) is not None:
                delattr(model, mark)
    return model


def stored_as(model: str, held: PreTrainedModel | None = None) -> str:
    """In words how the base's weights are rounded beyond float16; empty where they are not.

    Args:
        held: the model in memory, for what its configuration says.
    """
    inside = gguf_of(model)
    if inside is not None:
        path = gguf_path(inside.source, inside.file)
        found = None if path is None else quantisation(path)
        return "" if found is None or found.is_exact else str(found)
    if held is None:
        return ""
    config: Any = getattr(held.config, "quantization_config", None)
    method = quantised_by(held.config)
    bits = "4 bits" if getattr(config, "load_in_4bit", False) else ""
    bits = "8 bits" if getattr(config, "load_in_8bit", False) else bits
    return f"{method}, {bits}" if bits else method


def gguf_path(source: str, file: str) -> Path | None:
    """A GGUF file on this machine, in a folder or in the hub's cache; None where it is not."""
    place = Path(source).expanduser() / file
    if place.is_file():
        return place
    try:
        found = try_to_load_from_cache(source, file)
    except ValueError:
        return None
    return Path(found) if isinstance(found, str) else None
