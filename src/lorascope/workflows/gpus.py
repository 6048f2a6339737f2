"""What a study would take on named GPUs, from its arithmetic and the cards' published speeds.

A guide to an order of magnitude: large products reach about three quarters of a card's published
dense bfloat16 speed, and each part of a study the share of that it is known to reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.workflows.cost import CostPart

# Share of the published speed that large square products reach.
_REACHED = 0.75
# Hours on the slowest card below which nobody has to choose one.
_WORTH_SAYING = 0.2
# What a process on the card takes beside the study: context, workspaces, fragments.
_BESIDE = 2e9


@dataclass(frozen=True)
class Gpu:
    """A card as its maker publishes it.

    Attributes:
        memory: bytes.
        speed: dense bfloat16 operations a second.
    """

    name: str
    memory: float
    speed: float


GPUS = (
    Gpu("A100, 40 GB", 40e9, 312e12),
    Gpu("A100, 80 GB", 80e9, 312e12),
    Gpu("H100, 80 GB", 80e9, 989e12),
    Gpu("H200, 141 GB", 141e9, 989e12),
)


def on_gpus(parts: Sequence[CostPart]) -> Iterator[tuple[str, str]]:
    """(card, hours, and whether the hungriest part fits) of one card of each kind.

    Nothing for a study that takes minutes on any of them.
    """
    if _hours(parts, GPUS[0]) < _WORTH_SAYING:
        return
    needed = max(part.memory for part in parts) + _BESIDE
    for gpu in GPUS:
        hours = _hours(parts, gpu)
        if needed > gpu.memory:
            yield gpu.name, f"too small: {needed / 1e9:,.0f} GB are needed"
        else:
            yield gpu.name, f"about {hours:,.1f} h, {needed / 1e9:,.0f} GB"


def _hours(parts: Sequence[CostPart], gpu: Gpu) -> float:
    return sum(part.seconds(_REACHED * gpu.speed) for part in parts) / 3600
