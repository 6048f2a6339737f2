"""Time and price of a study on rented GPUs, from its arithmetic and published figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorascope.workflows.cost import CostPart
from lorascope.workflows.machines import MACHINES, Machine

# Hours on the slowest card below which nobody has to choose one.
_WORTH_SAYING = 0.2
# What a process on the card takes beside the study: context, workspaces, fragments.
_BESIDE = 2e9
GPUS = tuple(MACHINES[name] for name in ("a100-40", "a100", "h100", "h200"))


def on_gpus(parts: Sequence[CostPart]) -> Iterator[tuple[str, str]]:
    """(card, hours, and whether the hungriest part fits) of one card of each kind.

    Nothing for a study that takes minutes on any of them.
    """
    if _hours(parts, GPUS[0]) < _WORTH_SAYING:
        return
    needed = max(part.memory for part in parts) + _BESIDE
    for gpu in GPUS:
        if needed > gpu.memory:
            yield gpu.title, f"too small: {needed / 1e9:,.0f} GB are needed"
        else:
            yield gpu.title, f"about {_hours(parts, gpu):,.1f} h, {needed / 1e9:,.0f} GB"


def _hours(parts: Sequence[CostPart], gpu: Machine) -> float:
    return sum(part.seconds(gpu.speed(part.dtype)) for part in parts) / 3600
