"""Load a causal language model and its tokenizer, with one clear line when that cannot be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorascope import embedded
from lorascope.errors import InputError, did_you_mean

DType = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_base(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in eval mode without trainable parameters, and its tokenizer.

    Args:
        model: a Hugging Face id, a folder, or "embedded" for the model inside this package, or
            "embedded-it" for its instruction-tuned sibling.
        revision: branch, tag or commit of the id.
        dtype: "auto" is float32 on a CPU and the checkpoint's own on a GPU, except that Gemma
            checkpoints stored in float16 become float32 (their activations overflow float16).
        device: "auto" is the GPU where there is one.
        device_map: handed to transformers for models that need several devices; excludes `device`.

    Raises:
        InputError: the model cannot be found, read or fitted to its architecture.
    """
    source = _source(model)
    if revision is not None and Path(source).is_dir():
        raise InputError(f'model "{model}" is a folder and has no revision "{revision}": drop it')
    place = _device(device, device_map)
    config = _read_config(source, model, revision)
    arguments: dict[str, Any] = {
        "config": config,
        "dtype": _dtype(dtype, place, config),
        "device_map": device_map if device_map is not None else str(place),
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    if _is_gemma(config):
        # other attention kernels drop Gemma-2's score capping and give NaN at padding
        arguments["attn_implementation"] = "eager"
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, **arguments
        )
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    except Exception as error:
        raise _cannot_load(model, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f'model "{model}" has no weights for {len(missing)} tensors (first: {missing[0]}): '
            "the checkpoint is incomplete, fetch it again"
        )
    return loaded.eval().requires_grad_(False), tokenizer


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with: the tokenizer's padding token, its end-of-text token, or 0.

    Padding is masked everywhere, so any id does where a tokenizer has neither.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    return 0


def _source(model: str) -> str:
    if embedded.is_embedded(model):
        return str(embedded.model_path(model))
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f'model folder "{model}" has no config.json: give a checkpoint folder')
        return str(folder)
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise InputError(f'model folder "{model}" does not exist: check the path')
    return model


def _device(device: str, device_map: str | dict[str, Any] | None) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    if device_map is not None:
        raise InputError("device and device_map are both given: leave one of them out")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise InputError(f'device "{device}" is unknown: use auto, cpu, cuda or cuda:0') from None
    if place.type == "cuda" and not has_gpu:
        raise InputError(f'device "{device}" is not available here: use cpu')
    return place


def _dtype(dtype: str, place: torch.device, config: PreTrainedConfig) -> str:
    if dtype not in DTYPES:
        hint = did_you_mean(dtype, DTYPES)
        raise InputError(f'dtype "{dtype}" is unknown: use one of {", ".join(DTYPES)}.{hint}')
    if dtype != "auto":
        return dtype
    half_gemma = _is_gemma(config) and config.get_text_config().dtype == torch.float16
    return "float32" if place.type == "cpu" or half_gemma else "auto"


def _is_gemma(config: PreTrainedConfig) -> bool:
    return config.model_type.startswith(("gemma2", "gemma3"))


def _read_config(source: str, model: str, revision: str | None) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:
        raise _cannot_load(model, error) from error


def _cannot_load(model: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if Path(model).expanduser().is_dir() or embedded.is_embedded(model):
        advice = "check that the folder holds a whole Hugging Face checkpoint"
    else:
        advice = (
            "check the id and the network; with HF_HUB_OFFLINE=1 the model must already be in the "
            "local Hugging Face cache; gated models need `hf auth login`"
        )
    return InputError(f'model "{model}" cannot be loaded: {advice} ({reason})')
