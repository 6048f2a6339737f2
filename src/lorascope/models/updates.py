"""Linear maps of a model and what an adapter or a fine-tune adds to them.

A LoRA update is kept as its two factors, from which norm and spectrum come without the matrix.
Where there are no factors (DoRA, a full fine-tune) the update is the difference of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.errors import InputError, did_you_mean
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.adapter_config import LORA
from lorascope.models.computed_updates import (
    changes_map,
    difference,
    inner,
    replaced,
    why_no_matrix,
)
from lorascope.models.held_maps import held_factors
from lorascope.models.sites import block_list, block_list_at
from lorascope.models.whole_tensors import (
    changed_maps,
    is_parameter,
    map_weight,
    resolve,
    whole_tensors,
)

# Last names of the modules whose output is added to the residual stream.
_WRITERS = (
    *("o_proj", "out_proj", "c_proj", "dense", "wo"),
    *("down_proj", "dense_4h_to_h", "fc2", "fc_out", "w2"),
)
_ATTENTION = ("attn", "attention")
# Norms between such a module and the stream: (of attention, of the MLP). `post_attention_layernorm`
# alone says nothing, since most architectures call the norm before the MLP so.
_NORMS_ON_THE_WAY = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)


class Svd(NamedTuple):
    """U · diag(S) · Vᵀ, largest singular value first, as many as the numerical rank."""

    U: Float[Tensor, "out r"]
    S: Float[Tensor, " r"]
    V: Float[Tensor, "in r"]


@dataclass(frozen=True)
class LoraUpdate:
    """What an adapter adds to one linear map: Δy = scale · B · (A · x).

    Attributes:
        module: the module's path in the bare model.
        B: [out, r], float32.
        A: [r, in], float32.
        scale: alpha / r, or alpha / √r for rsLoRA.
    """

    module: str
    B: Float[Tensor, "out r"]
    A: Float[Tensor, "r in"]
    scale: float

    @property
    def rank(self) -> int:
        """Inner size of the factors."""
        return self.A.shape[0]

    def dense(self) -> Float[Tensor, "out in"]:
        """The whole matrix; for GPT-2's Conv1D this is the transpose of its weight's layout."""
        return self.scale * (self.B @ self.A)

    def norm(self) -> float:
        """Frobenius norm, from two r × r products: ‖BA‖² = tr(BᵀB · AAᵀ)."""
        gram_b, gram_a = self.B.double().T @ self.B.double(), self.A.double() @ self.A.double().T
        return abs(self.scale) * float((gram_b * gram_a).sum().clamp(min=0).sqrt())

    def singular_values(self) -> Float[Tensor, " r"]:
        """The min(r, out, in) leading singular values, largest first: the SVD of R_B · R_Aᵀ."""
        r_b = torch.linalg.qr(self.B.double()).R
        r_a = torch.linalg.qr(self.A.double().T).R
        return (abs(self.scale) * torch.linalg.svdvals(r_b @ r_a.T)).float()

    def svd(self) -> Svd:
        """float64, from the QR of both factors and the SVD of R_B · R_Aᵀ."""
        q_b, r_b = torch.linalg.qr(self.B.double())
        q_a, r_a = torch.linalg.qr(self.A.double().T)
        U, S, Vh = torch.linalg.svd(self.scale * (r_b @ r_a.T))
        return _numerical(Svd(q_b @ U, S, q_a @ Vh.T))


@dataclass(frozen=True)
class DenseUpdate:
    """What DoRA, other tuner types and full fine-tunes add to one linear map.

    Δy = difference · x.

    Attributes:
        module: the module's path in the bare model.
        difference: [out, in], float32, adapted minus base.
    """

    module: str
    difference: Float[Tensor, "out in"]

    @property
    def rank(self) -> int:
        """The most that the matrix can have."""
        return min(self.difference.shape)

    def dense(self) -> Float[Tensor, "out in"]:
        """The whole matrix."""
        return self.difference

    def norm(self) -> float:
        """Frobenius norm."""
        return float(torch.linalg.matrix_norm(self.difference.double()))

    def svd(self) -> Svd:
        """float64, of the matrix itself."""
        U, S, Vh = torch.linalg.svd(self.difference.double(), full_matrices=False)
        return _numerical(Svd(U, S, Vh.T))


Update = LoraUpdate | DenseUpdate

# By model: its variants, and the LoRA layers there were with them.
_Layers = tuple[tuple[str, ...], list[tuple[str, LoraLayer]]]
_layers: WeakKeyDictionary[AdaptedModel, _Layers] = WeakKeyDictionary()


def _numerical(found: Svd) -> Svd:
    U, S, V = found
    nought = S[:1] * max(len(U), len(V)) * torch.finfo(S.dtype).eps
    kept = int(S.gt(nought).sum())
    return Svd(U[:, :kept], S[:kept], V[:, :kept])


def lora_updates(model: AdaptedModel, name: str) -> list[LoraUpdate]:
    """The update of every module that the adapter `name` targets, in the model's order.

    Embeddings count as linear maps of one-hot tokens: B is [d_model, r], A is [r, vocab].

    Of a parameter that holds several maps (fused experts) there is one for each.

    Raises:
        InputError: no such adapter; a full fine-tune; or an update that is not scale · B · A (DoRA,
            a trained bias on B, other variants, or a parameter that holds no known map).
    """
    peft_name = model.peft_name(name)
    if model.info(name).dora:
        raise InputError(
            f'adapter "{name}" is a DoRA adapter: it rescales whole weights, so its update is not '
            "of low rank and has no factors; measure its activations instead"
        )
    layers = lora_layers(model)
    for path, layer in layers:
        if layer.lora_bias.get(peft_name, False):
            raise InputError(
                f'adapter "{name}": the update of {path} is not scale · B · A alone: a bias on '
                "B is trained too; take weight_update, which leaves the bias out"
            )
    bare, found = bare_model(model), []
    for path, layer in layers:
        held = held_factors(bare, path, layer, peft_name)
        found += [_factored(label, *both, layer, peft_name) for label, both in held.items()]
        update = None if held else _update(name, path, layer, peft_name)
        found += [] if update is None else [update]
    return found


def updated_modules(model: AdaptedModel, name: str) -> list[str]:
    """Paths of the linear maps that `name` adds something to, in the model's order.

    Those a LoRA or DoRA adapter targets, saves whole, or trains rows of; of a full fine-tune those
    whose weight differs from the base's, routers and single experts among them
    (`whole_tensors`), as of LoRA each map that a parameter it targets holds; of other tuner types
    those that compute something else; none of an adapter that acts by hooks. Tied weights count
    once. What else an adapter changes (norms, biases, updates that are no matrix) is in
    `other_changes`.

    Raises:
        InputError: there is no such adapter.
    """
    if not model.has_weights(name):
        return []
    kind, bare = model.info(name).kind, bare_model(model)
    if kind not in ("", LORA):
        with model.variant(name) as tuned:
            changed = [(p, m) for p, m in replaced(tuned).items() if why_no_matrix(m) is None]
        return [path for path, module in changed if changes_map(module)]
    whole = changed_maps(model, name, bare)
    if not kind:
        return whole
    peft_name = model.peft_name(name)
    factored: list[str] = []
    for path, layer in lora_layers(model):
        if held := held_factors(bare, path, layer, peft_name):
            factored += held
        elif lora_factors(layer, peft_name) is not None and no_matrix(layer, peft_name) is None:
            factored.append(path)
    return [*factored, *(path for path in whole if path not in factored)]


def weight_update(model: AdaptedModel, name: str, module: str) -> Update:
    """What `name` adds to the linear map at the path `module`, DoRA and full fine-tunes included.

    A bias trained beside B is no part of it.

    Raises:
        InputError: no such adapter or module; an update that is neither low rank nor DoRA.
    """
    kind, bare = model.info(name).kind, bare_model(model)
    if kind not in ("", LORA):
        with model.variant(name) as tuned:
            changed = replaced(tuned)
        if module in changed and why_no_matrix(changed[module]) is None:
            return DenseUpdate(module, difference(changed[module]))
    else:
        theirs = map_weight(bare, module, whole_tensors(model, name, bare))
        if theirs is not None:
            W = base_weight(model, module)
            return DenseUpdate(module, theirs.float() - W.to(theirs.device).float())
    peft_name = model.peft_name(name) if kind == LORA else ""
    for path, one in lora_layers(model) if kind == LORA else ():
        if both := held_factors(bare, path, one, peft_name).get(module):
            return _factored(module, *both, one, peft_name)
    layer = None if kind not in ("", LORA) else _module(model, module)
    if not isinstance(layer, LoraLayer) or lora_factors(layer, peft_name) is None:
        near = did_you_mean(module, updated_modules(model, name))
        raise InputError(f'adapter "{name}" adds nothing to "{module}".{near}')
    if model.info(name).dora:
        return DenseUpdate(module, _dora_difference(layer, peft_name))
    update = _update(name, module, layer, peft_name)
    assert update is not None
    return update


def no_matrix(layer: LoraLayer, peft_name: str) -> str | None:
    """Why the update of a layer is no matrix to look at; None where it is one, or there is none."""
    factors = lora_factors(layer, peft_name)
    if factors is None:
        return None
    variant = layer.lora_variant.get(peft_name)
    if hasattr(layer, "parameter_name"):
        return "a parameter that holds no map known here (target_parameters)"
    if variant is not None and "dora" not in type(variant).__name__.lower():
        return f"an update that is not scale · B · A ({type(variant).__name__})"
    if any(factor.ndim != 2 for factor in factors):
        return f"an update of a {type(_bare(layer)).__name__}"
    weight = getattr(_bare(layer), "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        return "base weights stored in quantised form"
    return None


def base_weight(model: AdaptedModel, module: str) -> Float[Tensor, "out in"]:
    """W₀ of one module as a linear map, in its own dtype; an embedding's is [d_model, vocab].

    Raises:
        InputError: no such module, not a linear map, or weights stored in quantised form.
    """
    if is_parameter(module, model):
        held = map_weight(bare_model(model), module, dict(model.base_parameters))
        assert held is not None
        return held
    return _weight(module, _module(model, module))


def within_block(model: AdaptedModel, module: str) -> tuple[int, str] | None:
    """(block, path inside it) of a module's path; None for one outside the blocks."""
    prefix, _ = block_list_at(bare_model(model))
    if not module.startswith(f"{prefix}."):
        return None
    index, _, rest = module.removeprefix(f"{prefix}.").partition(".")
    return int(index), rest


def stream_gain(model: AdaptedModel, module: str) -> Float[Tensor, " d_model"] | None:
    """What each output dimension is multiplied by on its way into the residual stream.

    Ones, unless the block normalises what it adds (Gemma 2 and 3, OLMo 2, GLM-4): then the norm's
    weight; its division by the token's own root mean square is left out. None for modules whose
    output is not added to the stream. Told by the module's name and width.
    """
    bare = bare_model(model)
    if is_parameter(module, model):
        return None
    if _module(model, module) is bare.get_input_embeddings():
        return torch.ones(model.d_model)
    place = within_block(model, module)
    writes = module.rsplit(".", 1)[-1] in _WRITERS
    if place is None or not writes or len(base_weight(model, module)) != model.d_model:
        return None
    block, attends = block_list(bare)[place[0]], any(a in place[1] for a in _ATTENTION)
    for of_attention, of_mlp in _NORMS_ON_THE_WAY:
        if hasattr(block, of_mlp):
            norm: Any = getattr(block, of_attention if attends else of_mlp)
            # Weights of norms are stored as they are or less one; a row of ones tells.
            with torch.no_grad():
                return norm(torch.ones_like(norm.weight)).float().cpu()
    return torch.ones(model.d_model)


def bare_model(model: AdaptedModel) -> PreTrainedModel:
    """The base model; its weights and modules are the same in every variant but a full model's."""
    if model.current == BASE:
        return model.module
    with model.variant(BASE) as bare:
        return bare


def _module(model: AdaptedModel, path: str) -> nn.Module:
    bare = bare_model(model)
    try:
        return bare.get_submodule(path)
    except AttributeError:
        pass
    try:
        return resolve(bare, path)
    except AttributeError:
        near = did_you_mean(path, [known for known, _ in bare.named_modules()])
        raise InputError(f'the model has no module "{path}".{near}') from None


def lora_layers(model: AdaptedModel) -> list[tuple[str, LoraLayer]]:
    """Every module of the bare model that any LoRA adapter is put on, with its path."""
    # Thousands of modules are gone through again only where adapters have come on.
    if model not in _layers or _layers[model][0] != model.variants:
        every = bare_model(model).named_modules()
        _layers[model] = (model.variants, [(p, m) for p, m in every if isinstance(m, LoraLayer)])
    return list(_layers[model][1])


def _bare(layer: nn.Module) -> Any:
    return inner(layer)


def _weight(path: str, layer: nn.Module) -> Float[Tensor, "out in"]:
    layer = _bare(layer)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise InputError(
            f'"{path}" ({type(layer).__name__}) has no plain weight matrix to look at; '
            "load the base model without quantisation"
        )
    weight = weight.detach()
    return weight.T if isinstance(layer, Conv1D | nn.Embedding) else weight


def _dora_difference(layer: LoraLayer, peft_name: str) -> Float[Tensor, "out in"]:
    """m / ‖W₀ + ΔW‖ · (W₀ + ΔW) − W₀, norms by output, rounded as PEFT rounds them."""
    factors = lora_factors(layer, peft_name)
    assert factors is not None
    B, A = (factor.detach().float() for factor in factors)
    scale, weight = float(layer.scaling[peft_name]), _bare(layer).weight.detach()
    dora: Any = layer.lora_magnitude_vector[peft_name]
    norms = dora.get_weight_norm(weight, (B @ A).to(weight.dtype), scale).detach()
    factor = dora.weight.detach().double() / norms.double()
    W = _weight("", layer).double()
    return (factor[:, None] * (W + scale * (B.double() @ A.double())) - W).float()


def _update(name: str, path: str, layer: LoraLayer, peft_name: str) -> LoraUpdate | None:
    factors = lora_factors(layer, peft_name)
    if factors is None:
        return None
    variant = layer.lora_variant.get(peft_name)
    if variant is not None or hasattr(layer, "parameter_name") or any(f.ndim != 2 for f in factors):
        kind = "parameters" if variant is None else type(variant).__name__
        raise InputError(f'adapter "{name}": the update of {path} is not scale · B · A ({kind})')
    return _factored(path, *factors, layer, peft_name)


def _factored(label: str, B: Tensor, A: Tensor, layer: LoraLayer, peft_name: str) -> LoraUpdate:
    scale = float(layer.scaling[peft_name])
    return LoraUpdate(label, B.detach().float(), A.detach().float(), scale)


def lora_factors(layer: LoraLayer, peft_name: str) -> tuple[Tensor, Tensor] | None:
    """B and A of one layer as PEFT holds them; None where the adapter leaves the layer alone."""
    if peft_name in layer.lora_A:
        return layer.lora_B[peft_name].weight, layer.lora_A[peft_name].weight
    if peft_name in layer.lora_embedding_A:
        return layer.lora_embedding_B[peft_name], layer.lora_embedding_A[peft_name]
    return None
