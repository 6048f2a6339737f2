"""Tensors that a variant has of its own instead of the base's, and the linear maps they hold.

A full fine-tune's parameters, modules that an adapter saves whole, trained rows of tokens. A map
is named by its module's path, one held by a bare parameter by the parameter's (a router), one of
several held together by the parameter's and its number (`…experts.down_proj[3]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.models.adapted import AdaptedModel
from lorascope.models.computed_updates import inner

_NUMBERED = re.compile(r"(.+)\[(\d+)\]")


def resolve(model: nn.Module, path: str) -> nn.Module:
    """The model's own module at a path, whatever PEFT put around it or what it lies in.

    Raises:
        AttributeError: there is none.
    """
    found = inner(model)
    for part in filter(None, path.split(".")):
        found = inner(getattr(found, part))
        if not isinstance(found, nn.Module):
            raise AttributeError(path)
    return found


def whole_tensors(model: AdaptedModel, name: str, bare: PreTrainedModel) -> dict[str, Tensor]:
    """{parameter of the base: what `name` has in its place}, changed or not.

    Of a LoRA adapter what it saves whole and rows of tokens, of a full fine-tune everything;
    parameters that the base lacks are left out.
    """
    if not model.info(name).kind:
        with model.variant(name) as tuned:
            found = dict(tuned.named_parameters())
    else:
        peft_name = model.peft_name(name)
        found = {}
        for path, module in bare.named_modules():
            if isinstance(module, ModulesToSaveWrapper) and peft_name in module.modules_to_save:
                own = module.modules_to_save[peft_name].named_parameters()
                found |= {f"{path}.{leaf}": tensor for leaf, tensor in own}
            elif isinstance(module, TrainableTokensWrapper):
                rows = _with_rows(module, peft_name)
                found |= {} if rows is None else {f"{path}.weight": rows}
    return {key: tensor for key, tensor in found.items() if key in model.base_parameters}


def changed_tensors(
    model: AdaptedModel, name: str, bare: PreTrainedModel
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(parameter, the base's, the variant's) of those that differ, tied ones once."""
    seen: set[int] = set()
    for key, theirs in whole_tensors(model, name, bare).items():
        ours = model.base_parameters[key]
        if id(ours) in seen or ours.shape != theirs.shape:
            continue
        seen.add(id(ours))
        if not torch.equal(ours, theirs.to(device=ours.device, dtype=ours.dtype)):
            yield key, ours.detach(), theirs.detach()


def maps_in(bare: nn.Module, key: str, tensor: Tensor) -> list[str]:
    """The linear maps that a parameter holds; none where it is no linear map."""
    path, _, leaf = key.rpartition(".")
    owner = resolve(bare, path)
    if isinstance(owner, nn.Linear | Conv1D | nn.Embedding):
        return [path] if leaf == "weight" and tensor.ndim == 2 else []
    if tensor.ndim == 2 and leaf == "weight":
        return [key]
    if tensor.ndim == 3 and type(owner).__name__.endswith("Experts"):
        return [f"{key}[{i}]" for i in range(len(tensor))]
    return []


def changed_maps(model: AdaptedModel, name: str, bare: PreTrainedModel) -> list[str]:
    """The linear maps among the tensors that `name` has in place of the base's."""
    found = []
    for key, ours, theirs in changed_tensors(model, name, bare):
        for label in maps_in(bare, key, ours):
            number = _place(bare, label)[1]
            same = number is not None and torch.equal(
                ours[number], theirs[number].to(device=ours.device, dtype=ours.dtype)
            )
            if not same:
                found.append(label)
    return found


def map_weight(
    bare: nn.Module, label: str, tensors: dict[str, Tensor]
) -> Float[Tensor, "out in"] | None:
    """One map's matrix, from {parameter: tensor}; None where these do not hold it."""
    key, number = _place(bare, label)
    tensor = tensors.get(key)
    if tensor is None:
        return None
    owner = resolve(bare, key.rpartition(".")[0])
    turned = isinstance(owner, Conv1D | nn.Embedding)
    if number is not None:
        tensor, turned = tensor[number], bool(getattr(owner, "is_transposed", False))
    return tensor.detach().T if turned else tensor.detach()


def is_parameter(label: str, model: AdaptedModel) -> bool:
    """Whether a label names a map by a parameter that holds it instead of by a module."""
    numbered = _NUMBERED.fullmatch(label)
    return (numbered[1] if numbered else label) in model.base_parameters


def _place(bare: nn.Module, label: str) -> tuple[str, int | None]:
    """(parameter, number in it) of a map."""
    numbered = _NUMBERED.fullmatch(label)
    if numbered:
        return numbered[1], int(numbered[2])
    try:
        resolve(bare, label)
    except AttributeError:
        return label, None
    return f"{label}.weight", None


def _with_rows(module: TrainableTokensWrapper, peft_name: str) -> Tensor | None:
    """The embedding under an adapter that trained rows of it; None where it did not, or is tied."""
    layer = module.token_adapter
    if peft_name not in layer.trainable_tokens_delta or layer.tied_adapter:
        return None
    own: Any = inner(module)
    weight: Tensor = own.weight.detach().clone()
    # Called a delta in PEFT; it holds the rows themselves.
    rows = layer.trainable_tokens_delta[peft_name].detach()
    weight[torch.as_tensor(layer.token_indices[peft_name], device=weight.device)] = rows.to(weight)
    return weight
