"""Provenance of a dictionary: what SAELens' own files have no place for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lorascope.config import Settings
from lorascope.errors import InputError


class Card(Settings):
    """Where a dictionary comes from; saved as `lorascope.json` beside the weights.

    Attributes:
        target: what it was trained on; "delta" is adapted minus base.
        site: `layers.L`, the output of block L (0-based).
        model, revision: the base model.
        adapter, adapter_sha256: the adapter and its weights' hash, for a delta.
        activations: identity of the activations it was trained on.
        scale: what inputs were divided by in training; already folded into the weights.
        tokens: rows seen in training, repeats counted.
        settings: architecture and training settings.
        versions: libraries that made it.
        source: address it was opened from, for a foreign dictionary.
    """

    target: Literal["base", "delta", "gaussian", "unknown"] = "unknown"
    site: str = ""
    model: str = ""
    revision: str | None = None
    adapter: str = ""
    adapter_sha256: str = ""
    activations: str = ""
    scale: float = 1.0
    tokens: int = 0
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    source: str = ""

    def require(self, *, model: str, site: str, force: bool = False) -> None:
        """Refuse a dictionary made for another model or site.

        Raises:
            InputError: model or site differ and `force` is off. Unknown ones pass.
        """
        if force:
            return
        short = model.rstrip("/").rsplit("/", 1)[-1].lower()
        mine = self.model.rstrip("/").rsplit("/", 1)[-1].lower()
        if mine and mine != short:
            raise InputError(
                f"dictionary {self.source}: made for {self.model}, not for {model}; "
                "give one made for this model, or --force"
            )
        if self.site and self.site != site:
            raise InputError(
                f"dictionary {self.source}: made for {self.site}, not for {site}; "
                "give one made for this site, or --force"
            )
