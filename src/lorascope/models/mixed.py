"""Several variants in one pass: each row of a batch under an adapter of its own, or under none.

The base's products are the same for all rows, so that they are taken once for the whole batch; what
a LoRA layer adds is taken for each variant's rows alone. PEFT has the like for adapters by name;
here it may also be left out of some modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora.layer import Linear
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.adapter_config import LORA
from lorascope.models.updates import lora_layers


@dataclass(frozen=True)
class VariantRows:
    """Rows of a batch that run under one variant.

    Attributes:
        rows: which.
        silent: paths of linear maps to which the adapter adds nothing here.
    """

    variant: str
    rows: slice
    silent: frozenset[str] = frozenset()


class UnmixedRows(Exception):  # noqa: N818 - a signal to run one variant after the other
    """A layer was given something else than the rows of the batch."""


def can_mix(model: AdaptedModel, variants: Sequence[str]) -> bool:
    """Whether these variants may run in one pass: plain LoRA on linear maps and nothing else.

    A layer may still be given other rows than the batch's, as experts are: `mixed` tells.
    """
    adapters = [name for name in variants if name != BASE]
    if not adapters:
        return True
    infos = [model.info(name) for name in adapters]
    if any(info.kind != LORA or info.dora for info in infos):
        return False
    if any(model.trained_biases(name) for name in adapters):
        return False
    with model.variant(BASE) as module:
        if any(isinstance(one, AuxiliaryTrainingWrapper) for one in module.modules()):
            return False
    return all(_plain(layer) for _, layer in lora_layers(model))


def _plain(layer: nn.Module) -> bool:
    return (
        type(layer) is Linear
        and "forward" not in layer.__dict__
        and not layer.merged
        and not layer.lora_variant
    )


@contextmanager
def mixed(model: AdaptedModel, shares: Sequence[VariantRows]) -> Iterator[PreTrainedModel]:
    """Within the `with`, rows of a batch run under the variants that `shares` say.

    Yields the model.

    Args:
        shares: of variants for which `can_mix` holds; rows that none names run under the base.

    Raises:
        UnmixedRows: by a pass in which a layer is given something else than these rows.
    """
    count = max(share.rows.stop for share in shares)
    with model.variant(BASE) as module:
        changed: list[nn.Module] = []
        try:
            for path, layer in lora_layers(model):
                layer.__dict__["forward"] = _forward(layer, _own(model, path, layer, shares), count)
                changed.append(layer)
            yield module
        finally:
            for one in changed:
                del one.__dict__["forward"]


# Rows, A and B, and the scale of what they add.
_Added = tuple[slice, nn.Module, nn.Module, float]


def _own(model: AdaptedModel, path: str, layer: Any, shares: Sequence[VariantRows]) -> list[_Added]:
    """What is added to which rows; rows side by side that get the same are taken together."""
    found: list[_Added] = []
    for share in shares:
        name = model.peft_name(share.variant) if share.variant != BASE else ""
        if name not in layer.lora_A or path in share.silent:
            continue
        rows, A = share.rows, layer.lora_A[name]
        if found and found[-1][1] is A and found[-1][0].stop == rows.start:
            rows = slice(found.pop()[0].start, rows.stop)
        found.append((rows, A, layer.lora_B[name], float(layer.scaling[name])))
    return found


def _forward(layer: Any, added: Sequence[_Added], count: int) -> Callable[..., Tensor]:
    """What the layer computes: its base's product, and each share's update to its own rows."""

    def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
        found: Tensor = layer.base_layer(x, *args, **named)
        if x.ndim != 3 or len(x) != count:
            raise UnmixedRows
        for rows, A, B, scale in added:
            weight: Any = A.weight
            found[rows] += B(A(x[rows].to(weight.dtype))) * scale
        return found

    return forward
