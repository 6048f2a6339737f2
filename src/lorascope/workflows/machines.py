"""Machines one would rent, as their makers state them, for planning without them.

Speeds are of dense products, without sparsity, sums in float32; what a part of a study reaches of
that is counted with the part (`costs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lorascope.errors import InputError, did_you_mean

# Of the stated speed large products sustain about so much.
_SUSTAINED = 0.6


@dataclass(frozen=True)
class Machine:
    """One accelerator.

    Attributes:
        title: its name and variant.
        memory: bytes on it.
        float32, bfloat16, float64: stated operations a second of dense products. A type that it has
            no units for is computed as float32.
    """

    title: str
    memory: int
    float32: float
    bfloat16: float
    float64: float

    def speed(self, dtype: torch.dtype) -> float:
        """Operations a second that large products sustain."""
        stated = {torch.bfloat16: self.bfloat16, torch.float16: self.bfloat16}
        stated[torch.float64] = self.float64
        return _SUSTAINED * stated.get(dtype, self.float32)


def _machine(title: str, gigabytes: int, *tera: float) -> Machine:
    return Machine(title, gigabytes * 10**9, *(1e12 * speed for speed in tera))


# From the makers' data sheets: float32, bfloat16, float64, in 1e12 operations a second.
MACHINES = {
    "h200": _machine("H200 SXM", 141, 67, 989, 67),
    "h100": _machine("H100 SXM 80 GB", 80, 67, 989, 67),
    "a100": _machine("A100 SXM 80 GB", 80, 19.5, 312, 19.5),
    "a100-40": _machine("A100 SXM 40 GB", 40, 19.5, 312, 19.5),
    "l40s": _machine("L40S", 48, 91.6, 362, 1.4),
    "l4": _machine("L4", 24, 30.3, 121, 0.47),
    "4090": _machine("GeForce RTX 4090", 24, 82.6, 165, 1.3),
    "3090": _machine("GeForce RTX 3090", 24, 35.6, 71, 0.56),
    "t4": _machine("T4", 16, 8.1, 8.1, 0.25),
}


def machine_named(name: str) -> Machine:
    """The machine of that name.

    Raises:
        InputError: it is not in the table; says which are.
    """
    found = MACHINES.get(name.lower().removeprefix("rtx").strip(" -"))
    if found is None:
        hint = did_you_mean(name.lower(), MACHINES)
        raise InputError(f'--device: no machine "{name}".{hint} There are: {", ".join(MACHINES)}')
    return found
