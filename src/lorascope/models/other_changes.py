"""What an adapter or a fine-tune changes beside linear maps: no view leaves it out unsaid."""

from __future__ import annotations

import re

import torch
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

from lorascope.models.adapted import AdaptedModel
from lorascope.models.updates import bare_model, linear_maps, lora_layers, no_matrix

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def other_changes(model: AdaptedModel, name: str) -> dict[str, str]:
    """{path: what it is} of everything that `name` changes and `updated_modules` does not hold.

    Nothing for an adapter that acts by hooks.

    Raises:
        InputError: there is no such adapter.
    """
    if not model.has_weights(name):
        return {}
    if model.info(name).rank is None:
        return _of_full_model(model, name)
    peft_name = model.peft_name(name)
    found: dict[str, str] = {}
    for path, layer in lora_layers(model):
        reason = no_matrix(layer, peft_name)
        if reason is not None:
            found[path] = reason
        elif layer.lora_bias.get(peft_name, False):
            found[f"{path}.bias"] = "a bias trained beside B"
    for path, module in bare_model(model).named_modules():
        if isinstance(module, ModulesToSaveWrapper) and peft_name in module.modules_to_save:
            found[path] = "a module saved whole"
        elif (
            isinstance(module, TrainableTokensWrapper)
            and peft_name in module.token_adapter.trainable_tokens_delta
        ):
            found[path] = "trained rows of tokens"
    return found | dict.fromkeys(model.trained_biases(name), "a trained bias")


def summed_up(changes: dict[str, str]) -> str:
    """The changes in one line: blocks' numbers as *, and how many there are of each kind."""
    kinds: dict[tuple[str, str], int] = {}
    for path, what in changes.items():
        kind = (_NUMBER.sub("*", path), what)
        kinds[kind] = kinds.get(kind, 0) + 1
    return "; ".join(
        f"{path}{f' ({count})' if count > 1 else ''}: {what}"
        for (path, what), count in kinds.items()
    )


def _of_full_model(model: AdaptedModel, name: str) -> dict[str, str]:
    """Parameters of a full fine-tune that differ from the base's and are no linear map's weight."""
    bare = bare_model(model)
    maps = {f"{path}.weight" for path, _ in linear_maps(bare)}
    with model.face(name) as tuned:
        theirs = dict(tuned.named_parameters())
    return {
        path: "a changed tensor that is no linear map"
        for path, ours in model.base_parameters.items()
        if path in theirs
        and path not in maps
        and not torch.equal(ours, theirs[path].to(device=ours.device, dtype=ours.dtype))
    }
