"""Put a LoRA adapter on a model and prove that every tensor of its file arrived.

PEFT loads what it can match and says nothing about the rest, so the file's tensors are compared
with the tensors the model expects before they are loaded:

1. PEFT builds the adapter's layers from its configuration,
2. tensors of the base that the file carries along are set apart: unchanged ones are dropped,
   trained biases returned, anything else refused,
3. the remaining names and shapes must be exactly those of the layers,
4. the update must not be zero everywhere,
5. PEFT loads them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.transformers_weight_conversion import (
    convert_peft_adapter_state_dict_for_transformers,
)
from torch import Tensor
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.models.adapter_files import AdapterFiles

_PREFIX = "base_model.model."
_MAGNITUDE = ".lora_magnitude_vector"


def put_on(
    base: PreTrainedModel,
    peft: PeftModel | None,
    files: AdapterFiles,
    peft_name: str,
    originals: Mapping[str, Tensor],
) -> tuple[PeftModel, dict[str, Tensor]]:
    """Put one adapter on `base`.

    Args:
        peft: the wrapper around `base`, None for the first adapter.
        peft_name: the name PEFT is to know the adapter by.
        originals: the bare model's parameters by name.

    Returns:
        the wrapper, and {parameter name: trained bias}, which PEFT does not switch.

    Raises:
        InputError: the adapter does not fit the model, or changes nothing.
    """
    name = files.info.name
    _check_alone(peft, files)
    peft = _build_layers(base, peft, files, peft_name)
    weights, biases = _set_apart(files, originals)
    expected = get_peft_model_state_dict(
        peft, peft.state_dict(), adapter_name=peft_name, save_embedding_layers=False
    )
    converted = convert_peft_adapter_state_dict_for_transformers(
        peft, files.config, weights, peft_name
    )
    _check_fits(name, expected, converted)
    _check_biases(files, expected, biases, originals)
    if not biases and not _changes_something(converted, originals):
        raise InputError(
            f'adapter "{name}" changes nothing: its update is zero in every module; '
            "it may have been saved before training"
        )
    set_peft_model_state_dict(peft, weights, adapter_name=peft_name)
    return peft, biases


def _check_alone(peft: PeftModel | None, files: AdapterFiles) -> None:
    """PEFT cannot hold an adapter with trained token rows beside another one."""
    others = [] if peft is None else list(peft.peft_config.values())
    if others and any(c.trainable_token_indices for c in (files.config, *others)):
        raise InputError(
            f'adapter "{files.info.name}" cannot be loaded beside the others: an adapter with '
            "trainable_token_indices must be the only one; load it by itself"
        )


def _build_layers(
    base: PreTrainedModel, peft: PeftModel | None, files: AdapterFiles, peft_name: str
) -> PeftModel:
    try:
        if peft is None:
            return PeftModel(base, files.config, adapter_name=peft_name)
        peft.add_adapter(peft_name, files.config)
        return peft
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:240]
        beside = "" if peft is None else " beside the adapters given before it"
        raise InputError(
            f'adapter "{files.info.name}" does not fit {type(base).__name__}{beside}: {reason}'
        ) from error


def _set_apart(
    files: AdapterFiles, originals: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    weights: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    saved_whole = files.info.modules_to_save
    for key, tensor in files.weights.items():
        original_name = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
        original = originals.get(original_name)
        if original is None or any(f".{m}." in f".{original_name}" for m in saved_whole):
            weights[key] = tensor
            continue
        value = tensor.to(device=original.device, dtype=original.dtype)
        if value.shape == original.shape and torch.equal(value, original.detach()):
            continue
        if value.shape != original.shape or not original_name.endswith(".bias"):
            raise InputError(
                f'adapter "{files.info.name}" carries its own {original_name} of shape '
                f"{tuple(tensor.shape)}, the model's is {tuple(original.shape)}: resized or "
                "retrained base tensors are not supported; save the merged model and give that"
            )
        biases[original_name] = value
    return weights, biases


def _check_fits(name: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for key, tensor in found.items():
        if key in expected and expected[key].shape != tensor.shape:
            raise InputError(
                f'adapter "{name}" is for another base: {key} has shape {tuple(tensor.shape)}, '
                f"this model needs {tuple(expected[key].shape)}"
            )
    unused = sorted(set(found) - set(expected))
    if unused:
        raise InputError(
            f'adapter "{name}": {len(unused)} tensors of its file have no place in this model '
            f"(first: {unused[0]}): it is for another base, or its configuration was edited"
        )
    missing = sorted(set(expected) - set(found))
    if missing:
        raise InputError(
            f'adapter "{name}": its file lacks {len(missing)} tensors this model needs '
            f"(first: {missing[0]}): it is for another base, or was saved incompletely"
        )


def _check_biases(
    files: AdapterFiles,
    expected: Mapping[str, Tensor],
    biases: Mapping[str, Tensor],
    originals: Mapping[str, Tensor],
) -> None:
    """Every bias the configuration calls trained must be in the file, changed or not."""
    if files.bias == "none":
        return
    in_file = {key.removeprefix(_PREFIX).replace(".base_layer.", ".") for key in files.weights}
    wanted = {key for key in originals if key.endswith(".bias")}
    if files.bias == "lora_only":
        targets = {key.removeprefix(_PREFIX).split(".lora_")[0] for key in expected}
        wanted = {key for key in wanted if key.removesuffix(".bias") in targets}
    missing = sorted(wanted - in_file - set(biases))
    if missing:
        raise InputError(
            f'adapter "{files.info.name}": its configuration trains biases ({files.bias}) but its '
            f"file lacks {len(missing)} of them (first: {missing[0]}): it was saved incompletely"
        )


def _changes_something(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> bool:
    for key, tensor in weights.items():
        if ".lora_A" in key or ".lora_embedding_A" in key:
            continue
        if ".lora_B" in key or ".lora_embedding_B" in key:
            partner = weights.get(key.replace("_B", "_A"))
            if bool(tensor.any()) and (partner is None or bool(partner.any())):
                return True
            continue
        original = originals.get(key.removeprefix(_PREFIX).replace(_MAGNITUDE, ".weight"))
        if original is None or _differs(tensor, original.detach(), _MAGNITUDE in key):
            return True
    return False


def _differs(tensor: Tensor, original: Tensor, magnitude: bool) -> bool:
    """Whether a module saved whole, or a DoRA magnitude, is other than the base gives."""
    if not magnitude:
        return not torch.equal(tensor.to(original), original)
    # a DoRA magnitude starts as the norms of the weight along one of its axes
    norms = [original.float().norm(dim=axis) for axis in range(original.ndim)]
    found = tensor.flatten().float().to(original.device)
    return not any(
        norm.shape == found.shape and torch.allclose(norm, found, rtol=1e-2) for norm in norms
    )
