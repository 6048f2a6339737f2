"""Provenance of a dictionary: what SAELens' own files have no place for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lorascope.config import Settings
from lorascope.errors import InputError

# Names under which files know a model whose checkpoint is called otherwise.
_ALSO_CALLED = {
    "gpt2-small": "gpt2",
    "gemma-3-270m-pt": "gemma-3-270m",
    "mistral-7b": "mistral-7b-v0.1",
    "meta-llama-3.1-8b": "llama-3.1-8b",
    "meta-llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
}


Target = Literal["unknown", "base", "delta", "gaussian", "shuffled", "permuted"]


class Card(Settings):
    """Where a dictionary comes from; saved as `lorascope.json` beside the weights.

    Attributes:
        target: what it was trained on; "delta" is adapted minus base, the last three are made from
            a delta, to compare with.
        site: `layers.L`, the output of block L (0-based), or the file's own name of another place.
        d_model: width of the rows it reads; 0 where unknown.
        model, revision: the base model.
        adapter, adapter_sha256: the adapter and its weights' hash, for a delta.
        activations: identity of the activations it was trained on.
        scale: what inputs were divided by in training; already folded into the weights.
        massive: coordinates of the stream that were scaled down in training, undone in the weights.
        massive_directions: how many directions were, beside the coordinates.
        tokens: rows seen in training, repeats counted.
        settings: architecture and training settings.
        versions: libraries that made it.
        l0: mean active latents a row as its makers state them; 0 where unknown.
        neuronpedia: its id there, `gemma-2-9b/20-gemmascope-res-16k` for instance.
        source: address it was opened from.
        format: format it was opened from.
        note: what its file leaves open.
    """

    target: Target = "unknown"
    site: str = ""
    d_model: int = 0
    model: str = ""
    revision: str | None = None
    adapter: str = ""
    adapter_sha256: str = ""
    activations: str = ""
    scale: float = 1.0
    massive: tuple[int, ...] = ()
    massive_directions: int = 0
    tokens: int = 0
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    l0: float = 0.0
    neuronpedia: str = ""
    source: str = ""
    format: str = ""
    note: str = ""

    def require(
        self, *, model: str, site: str, d_model: int | None = None, force: bool = False
    ) -> None:
        """Refuse a dictionary made for another model, site or width.

        `force` lets another model or site through; no dictionary reads rows of another width.
        What the card does not know passes.

        Raises:
            InputError: model, site or width differ.
        """
        if d_model is not None and self.d_model and self.d_model != d_model:
            raise InputError(
                f"dictionary {self.source}: reads rows of width {self.d_model}, the model's are "
                f"{d_model} wide; give one made for this model"
            )
        if force:
            return
        if self.model and _plain_name(self.model) != _plain_name(model):
            raise InputError(
                f"dictionary {self.source}: made for {self.model}, not for {model}; "
                "give one made for this model, or --force"
            )
        if self.site and self.site != site:
            raise InputError(
                f"dictionary {self.source}: made for {self.site}, not for {site}; "
                "give one made for this site, or --force"
            )


def _plain_name(model: str) -> str:
    """The model's name without owner or folder, in the spelling of its checkpoint."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return _ALSO_CALLED.get(name, name)
