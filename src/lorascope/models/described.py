"""A model and its variants in one printed line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.models.adapted import AdaptedModel


def described(model: AdaptedModel) -> str:
    """`AdaptedModel(embedded, 8 blocks × 192; adapters: r4, r8, 6 null adapters; shows base)`."""
    size = f"{model.n_blocks} blocks × {model.d_model}"
    given = ", ".join(model.adapters) or "none"
    nulls = len(model.null_adapters)
    drawn = f", {nulls} null adapter{'s' if nulls > 1 else ''}" if nulls else ""
    return f"AdaptedModel({model.id}, {size}; adapters: {given}{drawn}; shows {model.current})"
