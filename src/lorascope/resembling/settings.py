"""How adapters of one base are held against one another; nothing here imports a large library."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lorascope.config import Settings


class ResembleSettings(Settings):
    """How adapters of one base are held against one another.

    Attributes:
        model: their base model: hub id, folder or embedded; None for the one that all of their
            configurations name.
        texts: what the updates are weighted by, as `read_documents` takes them.
        documents: how many of the texts.
        tokens: most tokens of each.
        draws: null adapters of each adapter; a pair is held against twice as many.
        seed: of the draws.
        alike: names of adapters that were taught the same, from other seeds: the upper reference.
    """

    model: str | None = None
    texts: tuple[str, ...] = ("embedded",)
    documents: Annotated[int, Field(ge=8)] = 32
    tokens: Annotated[int, Field(ge=4)] = 64
    draws: Annotated[int, Field(ge=10, le=500)] = 10
    seed: Annotated[int, Field(ge=0)] = 0
    alike: tuple[tuple[str, ...], ...] = ()
