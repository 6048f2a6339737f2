"""What a study takes in arithmetic, memory, disk and time; refused where it cannot fit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from lorascope.errors import InputError
from lorascope.machine import total_memory
from lorascope.training.architectures import Architecture, BatchTopK, TopK
from lorascope.training.architectures.objective import SPARSE_BELOW
from lorascope.workflows.speed import product_speed

# Interpreter, libraries and tokenizer.
RESIDENT = 500_000_000


# Products with a dimension of so many reach half of what large ones do.
_HALF_SPEED_WIDTH = 128


# Seconds of one training step of a dictionary beside its products.
STEP_SECONDS = 0.0013


@dataclass(frozen=True)
class CostPart:
    """What one part of a study takes.

    Attributes:
        flops: floating-point operations.
        memory: bytes while it runs.
        dtype: type of its large products.
        reached: share of the speed of large square products that it reaches.
        fixed: seconds that no faster product saves.
    """

    name: str
    flops: float
    memory: int
    dtype: torch.dtype
    reached: float
    fixed: float = 0.0

    def seconds(self, speed: float) -> float:
        """Time it takes where large products run at `speed` operations a second."""
        return self.fixed + self.flops / (self.reached * speed)


def operations_a_row(made: Architecture, d: int, device: str) -> tuple[float, float]:
    """One row through one training step of a dictionary, and the share of the speed reached.

    Five products of d × n: encode, decode, and three gradients. On a CPU, where TopK and BatchTopK
    keep few enough latents, all but the first touch only those, at a lower speed. Architectures
    whose latents thin out as they learn are counted as dense throughout.
    """
    dense = 2.0 * d * made.n_latents
    if device != "cpu" or not isinstance(made, TopK | BatchTopK):
        return 5 * dense, 0.5
    if made.k > SPARSE_BELOW * made.n_latents:
        return 5 * dense, 0.5
    return dense + 8.0 * d * made.k, 0.3


def reached(share: float, d: int) -> float:
    """The share of the product speed that a part reaches in a stream of width d."""
    return share * d / (d + _HALF_SPEED_WIDTH)


def resident(part: CostPart) -> int:
    """Bytes in all while a part runs."""
    return part.memory + RESIDENT


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What any study takes.

    Attributes:
        disk: bytes of the run folder; the hub's own cache is not counted.
        parts: arithmetic and memory of each part.
        device: where it would run: "cpu", "cuda", or "several devices".
        notes: what was estimated, and from what.
    """

    disk: int
    parts: tuple[CostPart, ...]
    device: str
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Floating-point operations of all parts."""
        return sum(part.flops for part in self.parts)

    @property
    def memory(self) -> int:
        """Bytes that the hungriest part takes."""
        return resident(self._hungriest)

    @property
    def about(self) -> str:
        """What stands behind a number that was estimated."""
        return " (estimated)" if self.notes else ""

    @property
    def _hungriest(self) -> CostPart:
        return max(self.parts, key=lambda part: part.memory)

    def seconds(self) -> dict[str, float]:
        """Estimated time of each part here, from a product speed measured now."""
        device = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
        return {part.name: part.seconds(product_speed(device, part.dtype)) for part in self.parts}

    def prices(self) -> list[tuple[str, str]]:
        """(what, how much) of disk, memory, arithmetic and time; times products for a moment."""
        seconds = self.seconds()
        return [
            ("disk", _bytes(self.disk)),
            ("memory", f"{_bytes(self.memory)}, in {self._hungriest.name}"),
            ("arithmetic", f"{self.flops:.2e} floating-point operations"),
            *((f"  {part.name}", f"{part.flops:.2e}") for part in self.parts),
            ("time", f"about {_time(sum(seconds.values()))} on this machine ({self.device})"),
            *((f"  {part.name}", _time(seconds[part.name])) for part in self.parts),
            *(("estimated", note) for note in self.notes),
        ]


def refuse_what_cannot_fit(cost: Cost, out: Path) -> None:
    """One clear line where disk or memory will not do; what a run in `out` has written counts.

    Raises:
        InputError: less is free than the study needs.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if (out / "manifest.json").exists():
        free += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if cost.disk > free:
        raise InputError(
            f"{out}: the study needs {_bytes(cost.disk)} of disk and {_bytes(free)} are free; "
            "use fewer documents or sites, or another --out"
        )
    if cost.device == "cpu":
        total, where = total_memory(), "this machine"
    elif cost.device == "cuda":
        total, where = torch.cuda.get_device_properties(0).total_memory, "the GPU"
    else:
        return
    if cost.memory > total:
        raise InputError(
            f"the study needs {_bytes(cost.memory)} of memory and {where} has "
            f"{_bytes(total)}; use a smaller model, fewer latents, or dtype bfloat16"
        )


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB" if value < 1000 else f"{value:,.0f} GB"


def _time(seconds: float) -> str:
    # Below the number that two digits would round up to a third.
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:,.2g} h" if seconds < 99 * 3600 else f"{seconds / 86400:,.0f} days"
