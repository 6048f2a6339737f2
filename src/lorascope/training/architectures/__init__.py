"""Architectures that can be trained, one file each: settings, loss, written-out gradients.

A new one is a file with a settings class that makes its objective, and a name in `Architecture`.
"""

from typing import Annotated

from pydantic import Field

from lorascope.training.architectures.batch_topk import BatchTopK
from lorascope.training.architectures.gated import Gated
from lorascope.training.architectures.jumprelu import JumpReLU
from lorascope.training.architectures.matryoshka import Matryoshka
from lorascope.training.architectures.relu import ReLU
from lorascope.training.architectures.topk import TopK

Architecture = Annotated[
    ReLU | TopK | BatchTopK | JumpReLU | Matryoshka | Gated, Field(discriminator="architecture")
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
