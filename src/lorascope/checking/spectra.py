"""Exact sizes and spectra of LoRA updates, from their r × r cores; scales as PEFT sets them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorascope.checking.tensors import Module, WeightsFile
from lorascope.models.random_updates import factor_spectrum

# Rows of a factor that are decomposed at once.
_ROWS = 4096


@dataclass(frozen=True)
class ModuleNumbers:
    """What one module's update is, scale · B · A.

    Attributes:
        path: the module's.
        kind: its path with numbers as *.
        shape: (out, r, in).
        scale: alpha / r, or alpha / √r for rsLoRA.
        norm: ‖scale · B · A‖_F.
        factors: |scale| · ‖B‖_F · ‖A‖_F.
        effective_rank: exp of the entropy of σ / Σσ; nan for a zero update.
        stable_rank: ‖·‖_F² / σ_1²; nan for a zero update.
        spectrum: singular values, largest first, as many as min(r, out, in).
    """

    path: str
    kind: str
    shape: tuple[int, int, int]
    scale: float
    norm: float
    factors: float
    effective_rank: float
    stable_rank: float
    spectrum: tuple[float, ...]


def scale_of(fields: Mapping[str, Any], path: str, r: int) -> float:
    """What PEFT multiplies B · A by: alpha over r, or over √r, with the pattern's alpha.

    Args:
        fields: of adapter_config.json; its patterns are known to end on the paths.
        r: inner size of the factors.
    """
    alpha = in_pattern(fields.get("alpha_pattern"), path, fields.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(r) if fields.get("use_rslora") else r)


def in_pattern(pattern: Mapping[str, Any] | None, path: str, default: Any) -> Any:
    """The value of the first key of a `rank_pattern` or `alpha_pattern` that the path ends with."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return default


@torch.no_grad()
def module_numbers(file: WeightsFile, module: Module, scale: float) -> ModuleNumbers | list[str]:
    """The numbers of a module that `is_pair`, or the names of its tensors that are not finite."""
    bad: list[str] = []
    triangles: dict[str, Tensor] = {}
    for part, stored in module.parts.items():
        tensor = file.read(stored)
        if not is_finite(tensor):
            bad.append(stored.key)
        elif part in ("A", "B"):
            triangles[part] = triangle(tensor if part == "B" else tensor.T)
    if bad:
        return bad
    # The spectrum of B · A is that of R_B · R_Aᵀ.
    S = abs(scale) * factor_spectrum(triangles["B"], triangles["A"].T)
    # What is no more than the rounding of the factors' products is zero.
    spectrum = torch.where(S.gt(1e-15 * S[0]), S, 0.0)
    norm = float(spectrum.norm())
    sizes = (float("nan"), float("nan")) if norm == 0 else ranks(spectrum)
    factors = abs(scale) * float(triangles["A"].norm() * triangles["B"].norm())
    return ModuleNumbers(
        module.path, module.kind, module.shape, scale, norm, factors, *sizes, (*spectrum.tolist(),)
    )


def triangle(tall: Tensor) -> Tensor:
    """R of the QR decomposition of [n, r] in float64, a few thousand rows at a time.

    The R of some rows stands for them in what follows, so that no copy of the whole is made.
    """
    R = tall.new_zeros((0, tall.shape[1]), dtype=torch.float64)
    for rows in tall.split(max(_ROWS, 4 * tall.shape[1])):
        R = torch.linalg.qr(torch.cat([R, rows.double()]), mode="r").R
    return R


def ranks(spectrum: Tensor) -> tuple[float, float]:
    """Effective rank (Roy & Vetterli 2007, EUSIPCO) and stable rank of a spectrum that is not 0."""
    shares = spectrum / spectrum.sum()
    entropy = -float(torch.special.xlogy(shares, shares).sum())
    return math.exp(entropy), float(spectrum.square().sum() / spectrum.max().square())


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # Kernels for eight-bit floats lack the test.
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())
