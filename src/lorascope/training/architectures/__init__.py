"""Architectures that can be trained: their settings in one file, losses and gradients in others.

A new one is a settings class that makes its objective, a file with the objective, and a name in
`Architecture`.
"""

from lorascope.training.architectures.settings import (
    Architecture,
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    ReLU,
    TopK,
)

__all__ = ["Architecture", "BatchTopK", "Gated", "JumpReLU", "Matryoshka", "ReLU", "TopK"]
