"""Shapes of models as published, for planning where a model's own files are not at hand.

Only sizes are here, no weights: enough to count parameters and arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from lorascope.models import dimensions
from lorascope.models.load import opener_of
from lorascope.models.sites import block_list

_GEMMA_2 = {"vocab_size": 256000, "head_dim": 256, "max_position_embeddings": 8192}
_PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "google/gemma-2-2b": (
        "gemma2",
        {
            **_GEMMA_2,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
        },
    ),
    "google/gemma-2-9b": (
        "gemma2",
        {
            **_GEMMA_2,
            "hidden_size": 3584,
            "intermediate_size": 14336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        },
    ),
    "google/gemma-2-27b": (
        "gemma2",
        {
            **_GEMMA_2,
            "head_dim": 128,
            "hidden_size": 4608,
            "intermediate_size": 36864,
            "num_hidden_layers": 46,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
        },
    ),
    "meta-llama/Llama-3.2-1B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
        },
    ),
    "meta-llama/Llama-3.1-8B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
        },
    ),
    **{
        f"Qwen/Qwen3-{size}": (
            "qwen3",
            {
                "vocab_size": 151936,
                "hidden_size": width,
                "intermediate_size": inner,
                "num_hidden_layers": blocks,
                "num_attention_heads": heads,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "max_position_embeddings": 40960,
                "tie_word_embeddings": tied,
            },
        )
        for size, width, inner, blocks, heads, tied in (
            ("1.7B", 2048, 6144, 28, 16, True),
            ("4B", 2560, 9728, 36, 32, True),
            ("8B", 4096, 12288, 36, 32, False),
            ("14B", 5120, 17408, 40, 40, False),
        )
    },
    "google/gemma-3-1b-it": (
        "gemma3_text",
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 32768,
        },
    ),
    "EleutherAI/pythia-70m-deduped": (
        "gpt_neox",
        {
            "vocab_size": 50304,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "max_position_embeddings": 2048,
        },
    ),
}


_PUBLISHED |= {
    f"{name}-it": _PUBLISHED[name] for name in ("google/gemma-2-2b", "google/gemma-2-9b")
}


@dataclass(frozen=True)
class Shape:
    """What the cost of running a model depends on.

    Attributes:
        parameters: all of them; tied ones once.
        block_parameters: of all blocks.
        head_parameters: of the map to the vocabulary.
        rank_one_parameters: of a rank-1 LoRA adapter on every linear map of the blocks.
        d_mlp: width inside the feed-forward layers.
        context: most tokens in one window.
    """

    parameters: int
    block_parameters: int
    head_parameters: int
    rank_one_parameters: int
    blocks: int
    d_model: int
    d_mlp: int
    heads: int
    vocabulary: int
    context: int

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Shape:
        """The shape a configuration describes, counted on a model without weights."""
        with torch.device("meta"):
            skeleton = opener_of(config).from_config(config)
        inside = block_list(skeleton)
        d, rows = dimensions.width(config), dimensions.vocabulary(config)
        return cls(
            parameters=_count(skeleton),
            block_parameters=_count(inside),
            head_parameters=d * rows,
            rank_one_parameters=sum(sum(p.shape) for p in inside.parameters() if p.ndim == 2),
            blocks=len(inside),
            d_model=d,
            d_mlp=dimensions.mlp_width(config),
            heads=dimensions.heads(config),
            vocabulary=rows,
            context=dimensions.context(config),
        )


def published(model: str) -> PreTrainedConfig | None:
    """The configuration of a well-known model as far as its shape goes; None where unknown."""
    if model not in _PUBLISHED:
        return None
    kind, sizes = _PUBLISHED[model]
    return AutoConfig.for_model(kind, **sizes)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
