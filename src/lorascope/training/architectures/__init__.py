"""Architectures that can be trained, one file each: settings, loss, written-out gradients.

A new one is a file with a settings class that makes its objective, and a name in `Architecture`.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lorascope.training.architectures.batch_topk import BatchTopK
from lorascope.training.architectures.gated import Gated
from lorascope.training.architectures.jumprelu import JumpReLU
from lorascope.training.architectures.matryoshka import Matryoshka
from lorascope.training.architectures.relu import ReLU
from lorascope.training.architectures.topk import TopK


def _relu_by_default(data: Any) -> Any:
    return {"architecture": "relu", **data} if isinstance(data, dict) else data


Architecture = Annotated[
    ReLU | TopK | BatchTopK | JumpReLU | Matryoshka | Gated,
    Field(discriminator="architecture"),
    BeforeValidator(_relu_by_default),
]

__all__ = [
    "Architecture",
    "BatchTopK",
    "Gated",
    "JumpReLU",
    "Matryoshka",
    "ReLU",
    "TopK",
]
