"""A LoRA update as its two factors, from which norm and spectrum come without the matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel


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


def lora_updates(model: AdaptedModel, name: str) -> list[LoraUpdate]:
    """The update of every module that the adapter `name` targets, in the model's order.

    Embeddings count as linear maps of one-hot tokens: B is [d_model, r], A is [r, vocab].

    Raises:
        InputError: no such adapter; a full fine-tune; or an update that is not scale · B · A (DoRA,
            a trained bias on B, other variants, or an adapter on bare parameters).
    """
    peft_name = model.peft_name(name)
    if model.info(name).dora:
        raise InputError(
            f'adapter "{name}" is a DoRA adapter: it rescales whole weights, so its update is not '
            "of low rank and has no factors; measure its activations instead"
        )
    with model.face("base") as module:
        layers = [(path, m) for path, m in module.named_modules() if isinstance(m, LoraLayer)]
    updates = [_update(name, path, layer, peft_name) for path, layer in layers]
    return [update for update in updates if update is not None]


def _update(name: str, path: str, layer: LoraLayer, peft_name: str) -> LoraUpdate | None:
    factors = _factors(layer, peft_name)
    if factors is None:
        return None
    variant = layer.lora_variant.get(peft_name)
    plain = variant is None and not layer.lora_bias.get(peft_name, False)
    if not plain or hasattr(layer, "parameter_name") or any(f.ndim != 2 for f in factors):
        kind = "parameters" if variant is None else type(variant).__name__
        raise InputError(f'adapter "{name}": the update of {path} is not scale · B · A ({kind})')
    B, A = (factor.detach().float() for factor in factors)
    return LoraUpdate(path, B, A, float(layer.scaling[peft_name]))


def _factors(layer: LoraLayer, peft_name: str) -> tuple[Tensor, Tensor] | None:
    if peft_name in layer.lora_A:
        return layer.lora_B[peft_name].weight, layer.lora_A[peft_name].weight
    if peft_name in layer.lora_embedding_A:
        return layer.lora_embedding_B[peft_name], layer.lora_embedding_A[peft_name]
    return None
