"""Provenance of a dictionary: what SAELens' own files have no place for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, field_validator

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
        unplaced: what it reads is not known, and files of its kind may read any place; it must be
            said before the dictionary is used.
    """

    # Strict: "5" is no number, true is not 1, and none is infinite.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    target: Target = "unknown"
    site: str = ""
    d_model: int = Field(default=0, ge=0)
    model: str = ""
    revision: str | None = None
    adapter: str = ""
    adapter_sha256: str = ""
    activations: str = ""
    scale: float = Field(default=1.0, gt=0)
    massive: list[NonNegativeInt] = Field(default_factory=list)
    massive_directions: int = Field(default=0, ge=0)
    tokens: int = Field(default=0, ge=0)
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    l0: float = Field(default=0.0, ge=0)
    neuronpedia: str = ""
    source: str = ""
    format: str = ""
    note: str = ""
    unplaced: bool = False

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What is known, of its many fields."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            if name is None or value != fields[name].get_default(call_default_factory=True):
                yield name, value

    def placed(self, said: str | None, otherwise: str | None = None) -> Card:
        """The card with a site it does not have itself.

        Args:
            said: the site its user names in the address; must not contradict the file.
            otherwise: one that stands in where neither knows.

        Raises:
            InputError: the file says another site than its user.
        """
        if said and self.site and said != self.site:
            raise InputError(
                f"dictionary {self.source}: made for {self.site}, and its address says {said}; "
                "leave ?site= away, or mend it"
            )
        site = said or self.site or otherwise or ""
        known = {"site": site, "unplaced": self.unplaced and not site}
        return self.model_copy(update=known)

    @field_validator("settings")
    @classmethod
    def _finite(cls, given: dict[str, Any]) -> dict[str, Any]:
        if any(isinstance(one, float) and not math.isfinite(one) for one in _leaves(given)):
            raise ValueError("holds a number that is NaN or infinite")
        return given

    def require(
        self, *, model: str, site: str, d_model: int | None = None, force: bool | None = False
    ) -> None:
        """Refuse a dictionary made for another model, site or width.

        `force` lets another model or site through, and None is of who has no such option; no
        dictionary reads rows of another width. What the card does not know passes, except a site
        that must be said.

        Raises:
            InputError: model, site or width differ, or the site must be said first.
        """
        if d_model is not None and self.d_model and self.d_model != d_model:
            raise InputError(
                f"dictionary {self.source}: reads rows of width {self.d_model}, the model's are "
                f"{d_model} wide; give one made for this model"
            )
        if force:
            return
        forced = "" if force is None else ", or --force"
        if self.model and not same_model(self.model, model):
            raise InputError(
                f"dictionary {self.source}: made for {self.model}, not for {model}; "
                f"give one made for this model{forced}"
            )
        if self.unplaced:
            raise InputError(
                f"dictionary {self.source}: does not say what it reads, and files of its kind may "
                f"read any place; say it at the end of its address, ?site={site}{forced}"
            )
        if self.site and self.site != site:
            raise InputError(
                f"dictionary {self.source}: made for {self.site}, not for {site}; "
                f"give one made for this site{forced}"
            )


def same_model(one: str, other: str) -> bool:
    """Whether two names stand for one model, owners and folders aside."""
    return _plain_name(one) == _plain_name(other)


def _leaves(data: object) -> list[object]:
    """Every value in plain data that is no list or mapping."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list | tuple):
        return [leaf for one in data for leaf in _leaves(one)]
    return [data]


def _plain_name(model: str) -> str:
    """The model's name without owner or folder, in the spelling of its checkpoint."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return _ALSO_CALLED.get(name, name)
