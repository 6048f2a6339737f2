"""Load a causal language model and its tokenizer, with one clear line when that cannot be done."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorascope import embedded
from lorascope.errors import InputError, did_you_mean
from lorascope.models.gguf_files import gguf_of, require_reader
from lorascope.models.places import model_address
from lorascope.models.stored import (
    FEWER_BITS,
    as_computed,
    gguf_path,
    in_fewer_bits,
    quantised_by,
    require_package,
)

DTYPES = ("auto", "float32", "bfloat16", "float16", *FEWER_BITS)
# transformers puts an adapter that lies beside a model's weights on the model; it looks for one in
# this folder of the model's, which is no one's.
_NO_ADAPTER = {"subfolder": "no-adapter"}


def load_base(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in eval mode without trainable parameters, and its tokenizer.

    The weights are the model's own: an adapter saved into the same folder is not put on.

    Args:
        model: a Hugging Face id, a folder, a GGUF file, or "embedded" for the model inside this
            package, or "embedded-it" for its instruction-tuned sibling.
        revision: branch, tag or commit of the id.
        dtype: "auto" is float32 on a CPU and the checkpoint's own on a GPU, except that Gemma
            checkpoints stored in float16 become float32 (their activations overflow float16).
            "nf4" and "int8" hold linear maps in 4 or 8 bits, by bitsandbytes.
        device: "auto" is the GPU where there is one.
        device_map: handed to transformers for models that need several devices; excludes `device`.

    Raises:
        InputError: the model cannot be found, read or fitted to its architecture.
    """
    source, inside = _source(model, revision)
    place = _device(device, device_map)
    config = read_config(model, revision)
    arguments: dict[str, Any] = {
        "config": config,
        "device_map": device_map if device_map is not None else str(place),
        "trust_remote_code": False,
        "output_loading_info": True,
        "adapter_kwargs": dict(_NO_ADAPTER),
        **inside,
    }
    if dtype in FEWER_BITS:
        arguments["quantization_config"] = in_fewer_bits(model, dtype, config)
        dtype = "auto"
    arguments["dtype"] = _dtype(dtype, place, config)
    if _is_gemma(config):
        # other attention kernels drop Gemma-2's score capping and give NaN at padding
        arguments["attn_implementation"] = "eager"
    try:
        with _weights_alone() if inside else nullcontext():
            opener = opener_of(config)
            loaded, report = opener.from_pretrained(source, revision=revision, **arguments)
        tokenizer = read_tokenizer(model, revision)
    except InputError:
        raise
    except Exception as error:
        raise _cannot_load(model, error) from error
    loaded = as_computed(loaded)
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f'model "{model}" has no weights for {len(missing)} tensors (first: {missing[0]}): '
            "the checkpoint is incomplete, fetch it again"
        )
    return loaded.eval().requires_grad_(False), tokenizer


def read_config(model: str, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a model, without a weight of it.

    Raises:
        InputError: it cannot be found or read, or says that the weights need a package that is not
            installed.
    """
    source, inside = _source(model, revision)
    try:
        if inside:
            require_reader(model)
            return copy.deepcopy(_gguf_config(*_seen(source, **inside), revision))
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:
        raise _cannot_load(model, error) from error
    require_package(model, config)
    return config


def read_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        InputError: it cannot be found or read.
    """
    source, inside = _source(model, revision)
    try:
        if inside:
            require_reader(model)
            return copy.deepcopy(_gguf_tokenizer(*_seen(source, **inside), revision))
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    except InputError:
        raise
    except Exception as error:
        raise _cannot_load(model, error) from error
    return found


def skeleton(config: PreTrainedConfig) -> PreTrainedModel | None:
    """A model without weights, to see what would fit it; None where weights are needed for that.

    So it is for weights in quantised form, whose layers are made when they are read.
    """
    if quantised_by(config):
        return None
    try:
        with torch.device("meta"):
            made: PreTrainedModel = opener_of(config).from_config(config)
    except Exception:
        # Whatever is wrong shows, with its reason, when the weights are read.
        return None
    return made.eval().requires_grad_(False)


def how_to_reach(thing: str) -> str:
    """What to do about a `thing` (model, adapter) of the hub that is not in the local cache."""
    if constants.HF_HUB_OFFLINE:
        return (
            f"the hub is switched off (HF_HUB_OFFLINE=1) and the {thing} is not in the local "
            f"Hugging Face cache: fetch it once without HF_HUB_OFFLINE=1, or give a folder"
        )
    return (
        f"check the id and the network; a gated {thing} needs `hf auth login`; with "
        f"HF_HUB_OFFLINE=1 the {thing} must already be in the local Hugging Face cache"
    )


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with: the tokenizer's padding token, its end-of-text token, or 0.

    Padding stands on the right under a mask, so that any id will do.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    return 0


def opener_of(config: PreTrainedConfig) -> Any:
    """What opens a model of this configuration; a wrapper of text and pictures is opened whole."""
    if type(config) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def _source(model: str, revision: str | None = None) -> tuple[str, dict[str, str]]:
    """Where transformers finds a model, and the GGUF file there that holds it, if one does."""
    source, inside = model_address(model), gguf_of(model)
    if revision is not None and Path(source).is_dir():
        raise InputError(f'model "{model}" is a folder and has no revision "{revision}": drop it')
    return source, {} if inside is None else {"gguf_file": inside.file}


def _seen(source: str, gguf_file: str) -> tuple[str, str, tuple[int, int]]:
    """A GGUF file with its size and time of change, so that one that was changed is read anew."""
    path = gguf_path(source, gguf_file)
    if path is None:
        return source, gguf_file, (0, 0)
    seen = path.stat()
    return source, gguf_file, (seen.st_size, seen.st_mtime_ns)


# Reading a header with 262,144 tokens takes seconds, and a command asks several times.
@lru_cache(maxsize=4)
def _gguf_config(
    source: str, file: str, seen: tuple[int, int], revision: str | None
) -> PreTrainedConfig:
    del seen
    from lorascope.models.gguf_headers import words_read_quickly

    with words_read_quickly():
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source, revision=revision, gguf_file=file, trust_remote_code=False
        )
    return config


@lru_cache(maxsize=4)
def _gguf_tokenizer(
    source: str, file: str, seen: tuple[int, int], revision: str | None
) -> PreTrainedTokenizerBase:
    del seen
    from lorascope.models.gguf_headers import words_read_quickly

    with words_read_quickly():
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision, gguf_file=file, trust_remote_code=False
        )
    return found


def _weights_alone() -> AbstractContextManager[None]:
    # The package gguf need not be installed.
    from lorascope.models.gguf_headers import weights_alone

    return weights_alone()


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


def _cannot_load(model: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, ImportError):
        advice = "install the package it needs"
    elif Path(model).expanduser().is_dir() or embedded.is_embedded(model):
        advice = "check that the folder holds a whole Hugging Face checkpoint"
    elif constants.HF_HUB_OFFLINE and not _is_cached(model):
        # The library's own words would send the user to the network that is switched off.
        return InputError(f'model "{model}" cannot be loaded: {how_to_reach("model")}')
    elif constants.HF_HUB_OFFLINE:
        advice = "its copy in the local Hugging Face cache is incomplete or damaged: fetch it again"
    else:
        advice = how_to_reach("model")
    return InputError(f'model "{model}" cannot be loaded: {advice} ({reason})')


def _is_cached(model: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except ValueError:
        # It is no id of the hub at all.
        return False
