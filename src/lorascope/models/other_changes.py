"""What an adapter or a fine-tune changes beside linear maps, so that reports can say so."""

from __future__ import annotations

import re

from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_config import LORA
from lorascope.models.computed_updates import offset, replaced, why_no_matrix
from lorascope.models.held_maps import held_factors
from lorascope.models.updates import bare_model, lora_layers, no_matrix
from lorascope.models.whole_tensors import changed_tensors, maps_in

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def other_changes(model: AdaptedModel, name: str) -> dict[str, str]:
    """{path: what it is} of everything that `name` changes and `updated_modules` does not hold.

    Nothing for an adapter that acts by hooks.

    Raises:
        InputError: there is no such adapter.
    """
    if not model.has_weights(name):
        return {}
    kind, bare = model.info(name).kind, bare_model(model)
    if kind not in ("", LORA):
        return _of_other_kind(model, name)
    whole = {
        key: "a changed tensor that is no linear map" if not kind else "a tensor saved whole"
        for key, ours, _ in changed_tensors(model, name, bare)
        if not maps_in(bare, key, ours)
    }
    if not kind:
        return whole
    peft_name = model.peft_name(name)
    found: dict[str, str] = {}
    for path, layer in lora_layers(model):
        if held_factors(bare, path, layer, peft_name):
            continue
        reason = no_matrix(layer, peft_name)
        if reason is not None:
            found[path] = reason
        elif layer.lora_bias.get(peft_name, False):
            found[f"{path}.bias"] = "a bias trained beside B"
    return found | whole | dict.fromkeys(model.trained_biases(name), "a trained bias")


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


def _of_other_kind(model: AdaptedModel, name: str) -> dict[str, str]:
    """What an adapter of another tuner type than LoRA changes and no matrix holds."""
    found: dict[str, str] = {}
    with model.variant(name) as tuned:
        for path, module in replaced(tuned).items():
            reason = why_no_matrix(module)
            if reason is not None:
                found[path] = reason
            elif offset(module):
                found[f"{path}.bias"] = "a trained bias"
    return found
