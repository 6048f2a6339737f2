"""Settings of capture, and the choices other settings share; nothing here waits for torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lorascope.config import Settings

if TYPE_CHECKING:
    import torch

# The kinds that instructions are sorted into by their words (`activations.categories`).
CATEGORIES = ("creative", "factual", "reasoning", "coding", "practical")
# Which records go through the tokenizer's chat template (`activations.text`).
Template = Literal["auto", "chat", "plain"]
# What is done to massive coordinates and directions (`activations.massive`).
Treatment = Literal["keep", "clip", "whiten"]


class Capture(Settings):
    """How activations are captured.

    Attributes:
        context: most tokens in one window of a document.
        batch_tokens: padded tokens in one forward pass.
        keep_special: count BOS, EOS, PAD and other special tokens as rows too.
        outlier_multiple: leave out tokens whose base norm at some site exceeds this many times the
            median there (attention sinks); 0 keeps them.
        store: type of the rows on disk. Deltas are subtracted in float32 before the cast.
    """

    context: int = Field(default=256, ge=8)
    batch_tokens: int = Field(default=4096, ge=8)
    keep_special: bool = False
    outlier_multiple: float = Field(default=10.0, ge=0)
    store: Literal["float32", "bfloat16"] = "bfloat16"

    @property
    def dtype(self) -> torch.dtype:
        """The storage type."""
        import torch

        return torch.float32 if self.store == "float32" else torch.bfloat16
