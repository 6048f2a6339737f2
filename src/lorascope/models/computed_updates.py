"""What an adapter of another tuner type adds to each linear map, from what the map computes.

PEFT's own `get_delta_weight` is not the update for every type (HiRA, HRA and OFT act on the base
weight), and merging rounds the base. So the module under the adapter is run on basis vectors, in
float64, and the base weight subtracted. Superposition is tried first: what is no linear map of its
input has no matrix.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.models.freezing import random_state_kept

_ROWS = 2048
_PROBES = 8
# float64 leaves 1e-12; types that work in float32 inside leave 1e-6 of the module's output.
_TOLERANCE = 1e-4
# Below this share of the module's output an update is rounding.
_NOUGHT = 1e-9


def replaced(tuned: PreTrainedModel) -> dict[str, nn.Module]:
    """{path: module} of the modules that PEFT put in place of the model's, outermost first."""
    found: dict[str, nn.Module] = {}
    for path, module in tuned.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if not inside and type(module).__module__.startswith("peft."):
            found[path] = module
    return found


def inner(module: nn.Module) -> nn.Module:
    """The model's own module inside one of PEFT's."""
    own: Any = module
    while type(own).__module__.startswith("peft."):
        own = getattr(own, "base_layer", None) or getattr(own, "original_module", None)
        if own is None:
            return module
    return own


def why_no_matrix(module: nn.Module) -> str | None:
    """Why what an adapter does at a module is no matrix; None where it is one."""
    own = inner(module)
    kind = type(own).__name__
    if not isinstance(own, nn.Linear | Conv1D | nn.Embedding):
        return f"a change of a {kind}, which is no linear map"
    if not own.weight.is_floating_point() or own.weight.ndim != 2:
        return "base weights stored in quantised form"
    if isinstance(own, nn.Embedding):
        return None
    mapped = _Mapped(module, own)
    with random_state_kept():
        torch.manual_seed(0)
        x, y = mapped.random(), mapped.random()
    together = mapped(3.0 * x - 20.0 * y)
    apart = 3.0 * mapped(x) - 20.0 * mapped(y)
    if float((together - apart).norm()) > _TOLERANCE * float(apart.norm()):
        return "an update that is no linear map of its input"
    return None


def offset(module: nn.Module) -> bool:
    """Whether an adapter changes what a linear map gives for an input of zeros: its bias."""
    if isinstance(inner(module), nn.Embedding):
        return False
    given, ours = _at_zero(module)
    return not torch.allclose(given, ours, rtol=1e-5, atol=1e-7)


def bias_difference(module: nn.Module) -> Float[Tensor, " out"]:
    """What an adapter adds to the bias of a linear map, adapted minus base."""
    given, ours = _at_zero(module)
    return given - ours


def _at_zero(module: nn.Module) -> tuple[Tensor, Tensor]:
    """What a linear map gives for zeros, and the base's bias."""
    own = inner(module)
    found = _Mapped(module, own).at_zero
    bias: Any = getattr(own, "bias", None)
    return found, torch.zeros_like(found) if bias is None else bias.detach().to(found)


@torch.no_grad()
def changes_map(module: nn.Module) -> bool:
    """Whether a module that `why_no_matrix` says nothing about has another matrix than the base's.

    Told on a few random inputs; of an embedding on every token.
    """
    own: Any = inner(module)
    if isinstance(own, nn.Embedding):
        ids = torch.arange(own.num_embeddings, device=own.weight.device)
        return any(bool(torch.ne(module(part), own(part)).any()) for part in ids.split(_ROWS))
    mapped = _Mapped(module, own)
    with random_state_kept():
        torch.manual_seed(0)
        x = mapped.random()
    W = (own.weight if isinstance(own, Conv1D) else own.weight.T).to(mapped.dtype)
    plain = x @ W
    return float((mapped(x) - plain).norm()) > _NOUGHT * float(plain.norm())


@torch.no_grad()
def difference(module: nn.Module) -> Float[Tensor, "out in"]:
    """float32, adapted minus base, of a module that `why_no_matrix` says nothing about."""
    own: Any = inner(module)
    if isinstance(own, nn.Embedding):
        ids = torch.arange(own.num_embeddings, device=own.weight.device)
        scale = _scale(own, ids)
        parts = [(module(p).double() - own(p).double()).float() for p in ids.split(_ROWS)]
        return torch.cat(parts).T / scale
    mapped = _Mapped(module, own)
    weight = own.weight if isinstance(own, Conv1D) else own.weight.T
    columns = []
    for part in torch.arange(weight.shape[0], device=weight.device).split(_ROWS):
        basis = torch.zeros(len(part), weight.shape[0], device=weight.device, dtype=mapped.dtype)
        basis[torch.arange(len(part)), part] = 1.0
        columns.append((mapped(basis).double() - weight[part].double()).float())
    return torch.cat(columns).T


def _scale(own: Any, ids: Tensor) -> float:
    """What some embeddings (Gemma's) multiply their rows by."""
    rows, given = own.weight[ids[:_ROWS]].double(), own(ids[:_ROWS]).double()
    square = float(rows.square().sum())
    return float((rows * given).sum()) / square if square else 1.0


class _Mapped:
    """A module under its adapter, as a map without bias, in float64 where it can be."""

    @torch.no_grad()
    def __init__(self, module: nn.Module, own: Any) -> None:
        self._width = own.weight.shape[0 if isinstance(own, Conv1D) else 1]
        self._device = own.weight.device
        self._module, self.dtype = module, own.weight.dtype
        zeros = torch.zeros(1, 1, self._width, device=self._device)
        for dtype in (torch.float64, torch.float32):
            try:
                wide = copy.deepcopy(module).to(dtype)
                self.at_zero = wide(zeros.to(dtype))[0, 0]
            except (RuntimeError, TypeError, NotImplementedError):
                continue
            self._module, self.dtype = wide, dtype
            return
        self.at_zero = module(zeros.to(self.dtype))[0, 0]

    def random(self) -> Tensor:
        """[probes, in], the same on every device."""
        drawn = torch.randn(_PROBES, self._width, dtype=torch.float64)
        return drawn.to(device=self._device, dtype=self.dtype)

    @torch.no_grad()
    def __call__(self, rows: Float[Tensor, "n in"]) -> Float[Tensor, "n out"]:
        found: Tensor = self._module(rows.to(self.dtype)[None])[0] - self.at_zero
        return found
