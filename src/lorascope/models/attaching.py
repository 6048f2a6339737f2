"""Put a LoRA adapter on a model and prove that every tensor of its file arrived.

PEFT loads what it can match and says nothing about the rest, so the file's tensors are compared
with the tensors the model expects before they are loaded:

1. PEFT builds the adapter's layers from its configuration,
2. rows of tokens that the base does not have are cut off,
3. tensors of the base that the file carries along are set apart: unchanged ones are dropped,
   trained biases returned, anything else refused,
4. the remaining names and shapes must be exactly those of the layers,
5. the update must not be zero everywhere,
6. PEFT loads them.

All but the last needs no weights: `fit` does it on a model without any, where whatever depends on
the base's values counts as changed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.utils.transformers_weight_conversion import (
    convert_peft_adapter_state_dict_for_transformers,
)
from torch import Tensor
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.models.adapter_files import AdapterFiles
from lorascope.models.changes import changes_something, same_values
from lorascope.models.vocabulary import cut_to_base

_PREFIX = "base_model.model."
# With bias="all" PEFT writes the bias of a module saved whole three times: under its own name, and
# as these parts of the module's wrapper.
_COPIES = (".original_module.", ".modules_to_save.")


@dataclass(frozen=True)
class PlacedAdapter:
    """An adapter whose layers are on a model and whose tensors were found to fit.

    Attributes:
        peft: the wrapper around the model.
        weights: what PEFT is to load.
        biases: {parameter name: trained bias}, which PEFT does not switch.
        extra_tokens: how many tokens were cut off.
    """

    peft: PeftModel
    weights: dict[str, Tensor]
    biases: dict[str, Tensor]
    extra_tokens: int


def put_on(
    base: PreTrainedModel,
    peft: PeftModel | None,
    files: AdapterFiles,
    peft_name: str,
    originals: Mapping[str, Tensor],
) -> PlacedAdapter:
    """Put one adapter on `base`.

    Args:
        peft: the wrapper around `base`, None for the first adapter.
        peft_name: the name PEFT is to know the adapter by.
        originals: the bare model's parameters by name.

    Raises:
        InputError: the adapter does not fit the model, or changes nothing.
    """
    fitted = fit(base, peft, files, peft_name, originals)
    set_peft_model_state_dict(fitted.peft, fitted.weights, adapter_name=peft_name)
    return fitted


def fit(
    base: PreTrainedModel,
    peft: PeftModel | None,
    files: AdapterFiles,
    peft_name: str,
    originals: Mapping[str, Tensor],
) -> PlacedAdapter:
    """Build an adapter's layers on `base` and check that its tensors fit them; load none.

    Args:
        base: a model, or one without weights (on the meta device).

    Raises:
        InputError: as `put_on`.
    """
    name = files.info.name
    _check_alone(peft, files)
    _check_tokens(base, files)
    beside = "" if peft is None else " beside the adapters given before it"
    with refusing(name, base, beside):
        # PEFT rewrites the configuration for architectures that changed; the files stay as read.
        config = copy.deepcopy(files.config)
        if peft is None:
            peft = PeftModel(base, config, adapter_name=peft_name)
        else:
            peft.add_adapter(peft_name, config)
        _refuse_wrong_scales(files, config)
        expected = get_peft_model_state_dict(
            peft, peft.state_dict(), adapter_name=peft_name, save_embedding_layers=False
        )
    found, extra = cut_to_base(base, expected, files.weights)
    weights, biases = set_apart(name, found, expected, originals)
    with refusing(name, base, beside):
        converted = convert_peft_adapter_state_dict_for_transformers(
            peft, peft.peft_config[peft_name], weights, peft_name
        )
    check_fits(name, expected, converted, config.task_type)
    _check_biases(files, expected, biases, originals)
    if not biases and not changes_something(peft, peft_name, converted, originals):
        raise InputError(
            f'adapter "{name}" changes nothing: its update is zero in every module; '
            "it may have been saved before training, or scaled to nothing (lora_alpha 0)"
        )
    return PlacedAdapter(peft, weights, biases, extra)


def _check_alone(peft: PeftModel | None, files: AdapterFiles) -> None:
    """PEFT cannot hold an adapter with trained token rows beside another one."""
    others = [] if peft is None else list(peft.peft_config.values())
    if others and any(c.trainable_token_indices for c in (files.config, *others)):
        raise InputError(
            f'adapter "{files.info.name}" cannot be loaded beside the others: an adapter with '
            "trainable_token_indices must be the only one; load it by itself"
        )


def _check_tokens(base: PreTrainedModel, files: AdapterFiles) -> None:
    """Rows trained for added tokens have no place in the base's embedding."""
    trained = files.config.trainable_token_indices or []
    lists = trained.values() if isinstance(trained, dict) else [trained]
    rows = int(base.get_input_embeddings().weight.shape[0])
    beyond = sorted({index for indices in lists for index in indices if index >= rows})
    if beyond:
        raise InputError(
            f'adapter "{files.info.name}" trains token {beyond[0]} and the model has {rows} '
            "tokens: it was trained after tokens were added; save the merged model and give that "
            "in its place"
        )


@contextmanager
def refusing(name: str, base: PreTrainedModel, beside: str) -> Iterator[None]:
    """Whatever PEFT raises over a foreign configuration or file becomes one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        raise InputError(
            f'adapter "{name}" does not fit {type(base).__name__}{beside}: {reason}'
        ) from error


def _refuse_wrong_scales(files: AdapterFiles, converted: LoraConfig) -> None:
    """Refuse experts trained one by one that PEFT fuses at another scale than they had.

    PEFT doubles rank and alpha of maps that were fused, which keeps alpha / r but not alpha / √r,
    and an alpha of a pattern that names an expert's map is not found again.
    """
    before: Any = files.config
    moved = set(converted.target_parameters or ()) - set(before.target_parameters or ())
    fused = set(converted.rank_pattern or ()) - set(before.rank_pattern or ())
    reason = None
    if before.use_rslora and fused:
        reason = "rank-stabilised scaling (use_rslora)"
    elif before.alpha_pattern and moved:
        reason = "an alpha_pattern"
    if reason is not None:
        raise InputError(
            f'adapter "{files.info.name}" was trained on experts one by one, with {reason}: '
            f"{', '.join(sorted(moved))} hold them together now, and PEFT would apply them at "
            "another scale than they were trained with; merge it with the versions it was trained "
            "with and give the merged model"
        )


def set_apart(
    name: str,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    originals: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What PEFT is to load, and biases that it would write into the base for good.

    Args:
        found: {key: tensor} of an adapter's file.
        expected: what PEFT's layers need.
        originals: the bare model's parameters.

    Raises:
        InputError: the file carries other tensors of the base than its own.
    """
    weights: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    for key, tensor in found.items():
        original_name = _bare(key)
        original = originals.get(original_name)
        if any(key.replace(copied, ".") in expected for copied in _COPIES if copied in key):
            continue
        # PEFT says what it takes: names of modules saved whole are ends of paths.
        if key in expected or original is None:
            weights[key] = tensor
            continue
        fits, is_bias = tensor.shape == original.shape, original_name.endswith(".bias")
        if fits and (not is_bias if original.is_meta else same_values(tensor, original)):
            continue
        if not fits or not is_bias:
            raise InputError(
                f'adapter "{name}" carries its own {original_name} of shape '
                f"{tuple(tensor.shape)}, the model's is {tuple(original.shape)}: retrained base "
                "tensors are not supported in an adapter; save the merged model and give that in "
                "its place, or save the adapter with modules_to_save"
            )
        biases[original_name] = tensor.to(device=original.device, dtype=original.dtype)
    return weights, biases


def check_fits(
    name: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], task: str | None
) -> None:
    """Refuse tensors that are not, by name and shape, exactly the expected ones.

    Args:
        task: task type that the configuration names.

    Raises:
        InputError: names the first that has another shape, no place, or is lacking.
    """
    for key, tensor in found.items():
        if key in expected and expected[key].shape != tensor.shape:
            raise InputError(
                f'adapter "{name}" is for another base: {key} has shape {tuple(tensor.shape)}, '
                f"this model needs {tuple(expected[key].shape)}"
            )
    unused = sorted(set(found) - set(expected))
    if unused:
        reason = "it is for another base, or its configuration was edited"
        if task is not None and task != TaskType.CAUSAL_LM:
            reason = (
                f"its task type is {task}, it was trained on a model with another head than a "
                "language model's; its files alone can be checked"
            )
        raise InputError(
            f'adapter "{name}": {len(unused)} tensors of its file have no place in this model '
            f"(first: {unused[0]}): {reason}"
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
    in_file = {_bare(key) for key in files.weights}
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


def _bare(key: str) -> str:
    """The name a tensor of an adapter's file has in the bare model."""
    return key.removeprefix(_PREFIX).replace(".base_layer.", ".")
