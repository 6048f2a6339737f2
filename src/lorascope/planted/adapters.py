"""An adapter built by hand: it writes one known direction on one known class of tokens.

One unit of the MLP of the first block is made into a detector, by LoRA factors on its three maps:

1. its row of the gate becomes a linear classifier of the token, far below zero off the class, where
   the activation function is nought;
2. its row of the up map is fitted so that the unit gives 1 on the class;
3. its column of the down map becomes the direction; what the unit wrote before is written by the
   other units, as far as they foretell it, and the unit is one that they foretell well.

These are least squares on what the base model computes; no gradient passes through the model.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lorascope.activations.tokens import Window, batches
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import Site, block_list
from lorascope.models.updates import stream_gain
from lorascope.randomness import generator

_MAPS = ("gate_proj", "up_proj", "down_proj")
_PATH = "model.layers.0.mlp"
_CONFIDENCE = 1e-6
_MARKS = set(string.punctuation)


@dataclass(frozen=True, eq=False)
class _Unit:
    """What one unit of the first MLP becomes; `others` are the units that take its old part."""

    index: int
    others: Float[Tensor, " units"]
    gate: Float[Tensor, " d"]
    up: Float[Tensor, " d"]
    down: Float[Tensor, " d"]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Of all kept tokens: the first MLP's input, its units' second moments, which are of the class,
    and the units' mean over these."""

    inputs: Float[Tensor, "n d"]
    moments: Float[Tensor, "units units"]
    of_class: Bool[Tensor, " n"]
    mean: Float[Tensor, " units"]


def punctuation(model: AdaptedModel) -> frozenset[int]:
    """Tokens of punctuation marks alone: frequent in any text, about one in seven."""
    texts = (model.tokenizer.decode([token]).strip() for token in range(model.vocab_size))
    return frozenset(i for i, text in enumerate(texts) if text and set(text) <= _MARKS)


def write_adapter(
    model: AdaptedModel,
    found: Sequence[Window],
    tokens: Collection[int],
    folder: Path,
    *,
    strength: float = 0.3,
    seed: int = 0,
) -> Float[Tensor, " d_model"]:
    """Write the adapter's PEFT folder; returns the unit direction it writes into the stream.

    Args:
        model: a Llama-like base model; its first block's output is where the direction appears.
        found: texts that show what tokens look like inside the model.
        tokens: ids of the class.
        strength: length of what the unit writes, before the norm on its way into the stream. What
            is long beside the MLP's own output is bent by that norm, and differs between tokens.
        seed: decides the direction.

    Raises:
        InputError: no such maps in the first block, or a class that the texts lack or consist of.
    """
    mlp = getattr(block_list(model.module)[0], "mlp", None)
    if not all(isinstance(getattr(mlp, name, None), nn.Linear) for name in _MAPS):
        raise InputError(
            f"model {model.id} has no MLP of {', '.join(_MAPS)} in its first block: "
            "take a Llama-like one, the embedded model for instance"
        )
    assert mlp is not None
    seen = _seen(model, mlp, found, tokens)
    if not 0 < int(seen.of_class.sum()) < len(seen.of_class):
        raise InputError("the texts have no token of the class, or no other: give other texts")
    gain = stream_gain(model, f"{_PATH}.down_proj")
    assert gain is not None
    matrix = mlp.down_proj.weight.detach().float().cpu()
    drawn = isotropic(1, model.d_model, generator(seed, "planted direction"))[0] / gain
    # At a right angle with what the MLP writes there anyway, the norm after it bends it least.
    usual = functional.normalize(matrix @ seen.mean, dim=0)
    down = functional.normalize(drawn - (drawn @ usual) * usual, dim=0)
    gate = _classifier(seen.inputs, seen.of_class)
    up = _constant(seen.inputs, seen.of_class, gate, mlp.act_fn)
    unit = _Unit(*_replaceable(seen.moments, matrix), gate, up, strength * down)
    _save(model, mlp, unit, folder)
    return functional.normalize(gain * down, dim=0)


@torch.no_grad()
def _seen(
    model: AdaptedModel, mlp: nn.Module, found: Sequence[Window], tokens: Collection[int]
) -> _Seen:
    inputs: list[Tensor] = []
    moments: list[Tensor] = []
    sums: list[Tensor] = []
    of_class: list[Tensor] = []
    ids = torch.tensor(sorted(tokens))
    with model.variant(BASE) as module:
        for batch in batches(found, model.tokenizer, padding_id(model.tokenizer), 4096):
            kept = batch.kept
            seen: dict[str, Tensor] = {}
            hooks = [
                getattr(mlp, name).register_forward_hook(
                    lambda _, given, __, name=name, seen=seen: seen.update({name: given[0]})
                )
                for name in ("gate_proj", "down_proj")
            ]
            try:
                attended = batch.attended.long().to(model.device)
                run_until(module, [Site(0)], batch.ids.to(model.device), attended)
            finally:
                for hook in hooks:
                    hook.remove()
            inputs.append(seen["gate_proj"].cpu().float()[kept])
            units = seen["down_proj"].cpu().float()[kept]
            moments.append((units.T @ units).double())
            of_class.append(torch.isin(batch.ids[kept], ids))
            sums.append(units[of_class[-1]].sum(0))
    total = torch.stack(moments).sum(0) / sum(map(len, inputs))
    meant = torch.cat(of_class)
    mean = torch.stack(sums).sum(0) / max(1, int(meant.sum()))
    return _Seen(torch.cat(inputs), total, meant, mean)


@torch.enable_grad()
def _classifier(inputs: Float[Tensor, "n d"], of_class: Bool[Tensor, " n"]) -> Float[Tensor, " d"]:
    """Logistic regression without intercept, both classes with equal weight."""
    x, share = inputs.double(), of_class.double().mean()
    weights = torch.where(of_class, 0.5 / share, 0.5 / (1 - share))
    signs = torch.where(of_class, 1.0, -1.0).double()
    reader = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([reader], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        found = (weights * functional.softplus(-signs * (x @ reader))).mean()
        found = found + _CONFIDENCE * reader.square().sum()
        found.backward()
        return float(found.detach())

    optimizer.step(loss)
    return reader.detach()


def _constant(
    inputs: Float[Tensor, "n d"],
    of_class: Bool[Tensor, " n"],
    gate: Float[Tensor, " d"],
    activation: nn.Module,
) -> Float[Tensor, " d"]:
    """The row of the up map with which the unit comes to 1 on the class."""
    x = inputs[of_class].double()
    opened = x * activation(x @ gate)[:, None]
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    return torch.linalg.lstsq(opened, ones, driver="gelsd").solution[:, 0]


def _replaceable(
    moments: Float[Tensor, "units units"], down: Float[Tensor, "d units"]
) -> tuple[int, Float[Tensor, " units"]]:
    """The unit whose writing the others foretell best, and the weights with which they do.

    With P the inverse of the units' second moments, unit j is Σ −P_jk/P_jj h_k over the others and
    an error of variance 1/P_jj.
    """
    ridge = _CONFIDENCE * moments.diagonal().mean() * torch.eye(len(moments)).double()
    precision = torch.linalg.inv(moments + ridge)
    errors = down.double().norm(dim=0) / precision.diagonal().sqrt()
    index = int(errors.argmin())
    weights = -precision[index] / precision[index, index]
    weights[index] = 0.0
    return index, weights.float()


def _save(model: AdaptedModel, mlp: nn.Module, unit: _Unit, folder: Path) -> None:
    """The unit's rows and column, each less what stands there, as LoRA factors of rank 2."""
    weights = {name: getattr(mlp, name).weight.detach().float().cpu() for name in _MAPS}
    one = torch.zeros(len(weights["gate_proj"]))
    one[unit.index] = 1.0
    gate, up = (weights[name][unit.index] for name in _MAPS[:2])
    before = weights["down_proj"][:, unit.index]
    factors = {
        "gate_proj": ((unit.gate.float() - gate, torch.zeros_like(gate)), (one, one)),
        "up_proj": ((unit.up.float() - up, torch.zeros_like(up)), (one, one)),
        "down_proj": ((one, unit.others), (unit.down - before, before)),
    }
    tensors = {}
    for name, (A, B) in factors.items():
        key = f"base_model.model.{_PATH}.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.stack(A)
        tensors[f"{key}.lora_B.weight"] = torch.stack(B, dim=1).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(
        r=2,
        lora_alpha=2,
        target_modules=list(_MAPS),
        layers_to_transform=[0],
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.id,
    ).save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
