"""Sizes of a model as its configuration states them, whatever the architecture calls them.

The one place that reads them: configurations differ in their field names, some lack a field, and
some hold one value for each block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from lorascope.errors import InputError

# What architectures without the usual name call the longest sequence.
_CONTEXTS = ("max_position_embeddings", "max_seq_len", "seq_length", "n_positions", "n_ctx")
_MLP = ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "d_inner")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
# Longer than any text: the context of a model that states no limit (ALiBi, state-space models).
UNLIMITED = 2**31 - 1


def width(model_or_config: Any) -> int:
    """Width of the residual stream.

    Raises:
        InputError: the configuration does not say it.
    """
    return _needed(model_or_config, ("hidden_size", "d_model", "n_embd"), "hidden_size")


def vocabulary(model_or_config: Any) -> int:
    """How many token ids the model scores.

    Raises:
        InputError: the configuration does not say it.
    """
    return _needed(model_or_config, ("vocab_size",), "vocab_size")


def context(model_or_config: Any) -> int:
    """Most tokens the model takes in one sequence; `UNLIMITED` where it states no limit."""
    return _found(_text(model_or_config), _CONTEXTS) or UNLIMITED


def mlp_width(model_or_config: Any) -> int:
    """Width inside the feed-forward layers: the largest of all blocks, or 4 × the stream's."""
    text = _text(model_or_config)
    return _found(text, _MLP) or 4 * width(text)


def heads(model_or_config: Any) -> int:
    """Attention heads of a block: the most of all blocks, 1 in models without attention."""
    return _found(_text(model_or_config), _HEADS) or 1


def blocks(model_or_config: Any) -> int:
    """How many decoder blocks the model has.

    Raises:
        InputError: the configuration does not say it.
    """
    return _needed(model_or_config, ("num_hidden_layers", "n_layers", "n_layer"), "layers")


def of(model_or_config: Any) -> dict[str, str | int]:
    """What a model and its fine-tunes have in common: {what: its value}.

    Raises:
        InputError: the configuration does not say it.
    """
    return {
        "architecture": str(_config(model_or_config).model_type),
        "d_model": width(model_or_config),
        "blocks": blocks(model_or_config),
        "vocabulary": vocabulary(model_or_config),
    }


def _config(model_or_config: Any) -> Any:
    return model_or_config.config if isinstance(model_or_config, nn.Module) else model_or_config


def _text(model_or_config: Any) -> Any:
    return _config(model_or_config).get_text_config()


def _needed(model_or_config: Any, names: Sequence[str], usual: str) -> int:
    text = _text(model_or_config)
    found = _found(text, names)
    if found is None:
        raise InputError(
            f"the model's configuration ({type(text).__name__}) has no usable {usual}: give a "
            "causal language model"
        )
    return found


def _found(text: Any, names: Sequence[str]) -> int | None:
    for name in names:
        size = _size(getattr(text, name, None))
        if size is not None:
            return size
    return None


def _size(value: Any) -> int | None:
    """A positive whole number; of one value a block the largest."""
    if isinstance(value, list | tuple):
        sizes = [size for size in map(_size, value) if size is not None]
        return max(sizes, default=None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and value >= 1 else None
