"""The adapter merged into copies of the weights, and those copies rounded as they are stored.

Rounding is to the nearest: bfloat16; whole numbers of eight bits, a scale for each row; of four,
a scale for every 32 weights of a row (GGUF's Q4_0 has this grid, with its own rule for the scale).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorascope.checking.effect import Rounding
from lorascope.checking.findings import Finding
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import block_list
from lorascope.models.updates import lora_layers

# Weights that share a scale of four bits.
GROUP = 32


@contextmanager
def merged(model: AdaptedModel, name: str) -> Iterator[None]:
    """Within the `with`, PEFT has merged the adapter that is shown; what it raises passes through.

    Every base layer gets a copy of its weights for as long, so that nothing is rounded back.
    """
    peft_name = model.peft_name(name)
    kept, done = [], []
    layers = [m for _, m in lora_layers(model) if peft_name in m.scaling]
    try:
        for layer in layers:
            for parameter in layer.get_base_layer().parameters():
                kept.append((parameter, parameter.data))
                parameter.data = parameter.data.clone()
            done.append(layer)
            layer.merge(adapter_names=[peft_name])
        yield
    finally:
        for layer in done:
            if layer.merged:
                layer.unmerge()
        for parameter, data in reversed(kept):
            parameter.data = data


def refused(error: Exception) -> Finding:
    """What is said where PEFT does not merge."""
    reason = " ".join(str(error).split())[:160]
    return Finding("not-measured", "warning", f"PEFT does not merge this adapter: {reason}")


@contextmanager
def rounded(
    model: AdaptedModel, rounding: Rounding, rooms: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """Within the `with`, the linear maps of the blocks hold what their weights are rounded to.

    Args:
        rooms: memory of the rounded weights, empty at first, to be given again: fresh memory of
            that size takes longer than the rounding. The call's own by default.
    """
    rooms = {} if rooms is None else rooms
    kept = []
    try:
        for path, module in block_list(model.module).named_modules():
            if isinstance(module, nn.Linear | Conv1D) and ".lora_" not in f".{path}":
                weight = module.weight
                kept.append((weight, weight.data))
                room = rooms.setdefault(path, torch.empty_like(weight.data))
                # Of a Conv1D, rows are the columns of what it stores.
                turned = isinstance(module, Conv1D)
                store(
                    weight.data.T if turned else weight.data, rounding, room.T if turned else room
                )
                weight.data = room
        yield
    finally:
        for weight, data in reversed(kept):
            weight.data = data


def as_stored(weight: Float[Tensor, "out in"], rounding: Rounding) -> Float[Tensor, "out in"]:
    """The nearest weights that can be stored so, in the dtype given."""
    found = torch.empty_like(weight)
    store(weight, rounding, found)
    return found


def store(
    weight: Float[Tensor, "out in"], rounding: Rounding, room: Float[Tensor, "out in"]
) -> None:
    """Write into `room` the nearest weights that can be stored so."""
    if rounding == "bfloat16":
        room.copy_(weight.bfloat16())
        return
    whole = room.copy_(weight) if room.dtype == torch.float32 else weight.float()
    rows = whole
    if rounding == "int4":
        # A rest that fills no group shares a scale too: zeros beside it change none.
        rest = -whole.shape[1] % GROUP
        rows = (nn.functional.pad(whole, (0, rest)) if rest else whole).reshape(-1, GROUP)
    _round(rows, 7 if rounding == "int4" else 127)
    if rows.data_ptr() != room.data_ptr():
        room.copy_(rows.reshape(len(whole), -1)[:, : whole.shape[1]])


def _round(rows: Float[Tensor, "n m"], most: int) -> None:
    """To whole multiples, up to `most`, of each row's largest size over `most`; in place."""
    scale = rows.abs().amax(1, keepdim=True) / most
    # A row of zeros stays one.
    rows.div_(scale.masked_fill(scale == 0, 1)).round_().mul_(scale)
