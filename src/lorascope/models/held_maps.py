"""Factors that a LoRA adapter has on a parameter (`target_parameters`), map by map.

PEFT lays the factors of all experts that one parameter holds out in two matrices: A is
[experts · r, in] with an expert's rows together, B is [out, r · experts] with an expert's columns
`experts` apart. A map is named as `whole_tensors` names it: `…experts.down_proj[3]`, or the module
of a parameter that is one linear map.
"""

from __future__ import annotations

from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorascope.models.whole_tensors import maps_in, resolve


def held_factors(
    bare: nn.Module, path: str, layer: LoraLayer, peft_name: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """{map: (B [out, r], A [r, in])} of a layer on a parameter; empty where none is known there.

    Args:
        bare: the base model.
        path: where the layer lies in it.
    """
    if not isinstance(layer, ParamWrapper) or peft_name not in layer.lora_A:
        return {}
    own = path.removesuffix(".base_layer")
    while own != path:
        path, own = own, own.removesuffix(".base_layer")
    key = f"{own}.{layer.parameter_name}"
    labels = maps_in(bare, key, layer.get_param())
    B, A = layer.lora_B[peft_name].weight, layer.lora_A[peft_name].weight
    if layer.get_param().ndim == 2:
        # Factors of the parameter as it is stored, which some modules hold the other way round.
        turned = isinstance(resolve(bare, own), Conv1D | nn.Embedding)
        return dict.fromkeys(labels, (A.T, B.T) if turned else (B, A))
    r = len(A) // layer.num_experts
    by_expert = zip(B.reshape(len(B), r, -1).unbind(2), A.split(r), strict=True)
    return dict(zip(labels, by_expert, strict=True)) if labels else {}
