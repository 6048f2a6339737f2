"""The key of a number: adapter, site, seed, dictionary and the rest it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal


@dataclass(frozen=True)
class Key:
    """What a number belongs to; text is empty and numbers are None where it has none of that.

    Attributes:
        adapter, rank: the adapter, or the fit of an adapt study, and its rank.
        site: `layers.12`.
        seed: of the dictionary or of the training.
        dictionary: which dictionary, as `labels` calls it.
        compared: what it is held against, where that is another dictionary or adapter.
        k: dimensions of a subspace, or active latents of a pursuit.
        latent: index of one latent.
        module: path of a module, of a block, or `labels.ALL_MODULES`.
        size: how many latents an adapter is cut to.
        loss: a loss that a curve has reached, nats/token.
        model: which of several models.
        topic: kind of prompts or texts.
        about: the measure that a number about a measure is of.
        setting: what was set otherwise, `l1=0.05` of an ablation.
        null: of a number that is a draw of a null, which: `null_names.ADAPTER` or `GAUSSIAN`.
        draw: the draw's number; None for a number of what was given.
        massive: "without" where the stream's massive coordinates and directions are projected out.
    """

    adapter: str = ""
    rank: int | None = None
    site: str = ""
    seed: int | None = None
    dictionary: str = ""
    setting: str = ""
    compared: str = ""
    k: int | None = None
    latent: int | None = None
    module: str = ""
    size: int | None = None
    loss: float | None = None
    model: str = ""
    topic: str = ""
    about: str = ""
    null: str = ""
    draw: int | None = None
    massive: Literal["", "without"] = ""

    def __str__(self) -> str:
        """The fields that are set. Random draws are seeded by this text."""
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return ", ".join(f"{name}={value}" for name, value in named if value not in ("", None))


KEY_FIELDS: Final = tuple(one.name for one in fields(Key))
