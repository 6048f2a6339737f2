"""What a study takes in arithmetic, memory, disk and time; refused where it cannot fit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorascope.errors import InputError
from lorascope.machine import total_memory
from lorascope.training.architectures import Architecture, BatchTopK, TopK
from lorascope.training.architectures.objective import SPARSE_BELOW
from lorascope.workflows.advice import lowers_memory, lowers_time
from lorascope.workflows.machines import Machine
from lorascope.workflows.speed import product_speed

# Interpreter, libraries and tokenizer.
RESIDENT = 700_000_000
# Parts that are computed on the CPU wherever a study runs.
ON_CPU = ("measures", "weights")
# Products with a dimension of so many reach half of what large ones do.
_HALF_SPEED_WIDTH = 128
# A product with fewer rows takes as long: all weights are read for it. Continuations that are
# written token by token have as many rows as prompts.
FEWEST_ROWS = 16
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
    whose latents thin out as they learn are counted as dense throughout, at the speed of which they
    seem there, since many products are left out.
    """
    dense = 2.0 * d * made.n_latents
    if device != "cpu":
        return 5 * dense, 0.5
    if not isinstance(made, TopK | BatchTopK):
        return 5 * dense, 0.9
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
        cautions: what the study will be worse for.
        machine: of the table, for a study that is to run there; None for this machine.
    """

    disk: int
    parts: tuple[CostPart, ...]
    device: str
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    machine: Machine | None = None

    @property
    def flops(self) -> float:
        """Floating-point operations of all parts."""
        return sum(part.flops for part in self.parts)

    @property
    def memory(self) -> int:
        """Bytes that the hungriest part takes."""
        return resident(self.hungriest)

    @property
    def about(self) -> str:
        """What stands behind a number that was estimated."""
        return " (estimated)" if self.notes else ""

    @property
    def hungriest(self) -> CostPart:
        """The part that takes the most memory."""
        return max(self.parts, key=lambda part: part.memory)

    def speeds(self) -> dict[str, float]:
        """Operations a second that are assumed for each part, of the machine or measured here."""
        here = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
        found = {}
        for part in self.parts:
            on_cpu = part.name in ON_CPU
            if self.machine is not None and not on_cpu:
                found[part.name] = self.machine.speed(part.dtype)
            else:
                found[part.name] = product_speed("cpu" if on_cpu else here, part.dtype)
        return found

    def seconds(self) -> dict[str, float]:
        """Estimated time of each part, from the speed of products."""
        speeds = self.speeds()
        return {part.name: part.seconds(speeds[part.name]) for part in self.parts}

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a table; times the device's products for a moment."""
        return [*self.sizes(), *self.prices()]

    def sizes(self) -> list[tuple[str, str]]:
        """(what, how much) of the study's own sizes: model, texts, dictionaries, …."""
        return []

    def prices(self) -> list[tuple[str, str]]:
        """(what, how much) of disk, memory, arithmetic and time; times products for a moment."""
        seconds = self.seconds()
        longest = max(seconds, key=lambda name: seconds[name])
        share = seconds[longest] / max(1e-9, sum(seconds.values()))
        place = f"on this machine ({self.device})"
        if self.machine is not None:
            place = f"on one {self.machine.title}"
        return [
            ("disk", _bytes(self.disk)),
            ("memory", f"{_bytes(self.memory)}, in {self.hungriest.name}"),
            ("arithmetic", f"{self.flops:.2e} floating-point operations"),
            *((f"  {part.name}", f"{part.flops:.2e}") for part in self.parts),
            ("time", f"about {_time(sum(seconds.values()))} {place}"),
            *((f"  {part.name}", _time(seconds[part.name])) for part in self.parts),
            ("speed assumed", self._assumed()),
            ("largest part", f"{longest}, {share:.0%} of the time; lower {self.lowers(longest)}"),
            *(("estimated", note) for note in self.notes),
        ]

    def lowers(self, part: str) -> str:
        """What a user would lower to make a part cheaper."""
        return lowers_time(part)

    def plain(self) -> dict[str, Any]:
        """As plain data: bytes, operations and seconds, in all and of each part; times products."""
        speeds = self.speeds()
        parts: list[dict[str, Any]] = [
            {
                "part": part.name,
                "operations": part.flops,
                "seconds": part.seconds(speeds[part.name]),
                "memory": resident(part),
            }
            for part in self.parts
        ]
        longest = max(parts, key=lambda part: part["seconds"])["part"]
        return {
            "study": dict(self.sizes()),
            "where": self.device if self.machine is None else self.machine.title,
            "seconds": sum(part["seconds"] for part in parts),
            "operations": self.flops,
            "memory": self.memory,
            "disk": self.disk,
            "parts": parts,
            "largest_part": longest,
            "lower": self.lowers(longest),
            "speed_assumed": self._assumed(),
            "estimated": list(self.notes),
        }

    def _assumed(self) -> str:
        """Operations a second of large products, by type and by where it comes from."""
        speeds = self.speeds()
        measured: dict[str, str] = {}
        stated: dict[str, str] = {}
        for part in self.parts:
            name = str(part.dtype).removeprefix("torch.")
            known = self.machine is not None and part.name not in ON_CPU
            where = stated if known else measured
            where[name] = f"{speeds[part.name] / 1e9:,.0f} GFLOP/s in {name}"
        found = []
        if stated and self.machine is not None:
            found.append(f"{', '.join(stated.values())} ({self.machine.title}, as stated, × 0.6)")
        if measured:
            threads = torch.get_num_threads()
            found.append(
                f"{', '.join(measured.values())} (products measured here, "
                f"{threads} thread{'s' if threads > 1 else ''}, nothing else running)"
            )
        return "; ".join(found)


def refuse_what_cannot_fit(cost: Cost, out: Path) -> None:
    """One clear line where disk or memory will not do; what a run in `out` has written counts.

    Raises:
        InputError: less is free than the study needs.
    """
    for line in what_does_not_fit(cost, out):
        raise InputError(line)


def what_does_not_fit(cost: Cost, out: Path, memory: int | None = None) -> list[str]:
    """Lines where disk or memory will not do, each with what to lower.

    Args:
        out: where the run would go; what it has written there counts.
        memory: bytes there are, in place of those of the machine.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if (out / "manifest.json").exists():
        free += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    found = []
    # Of a machine elsewhere the disk is not known.
    if cost.disk > free and cost.machine is None:
        found.append(
            f"{out}: the study needs {_bytes(cost.disk)} of disk and {_bytes(free)} are free; "
            "use fewer documents or sites, or another --out"
        )
    total, where = memory, "the machine"
    if total is not None:
        where = "it"
    elif cost.machine is not None:
        total, where = cost.machine.memory, f"one {cost.machine.title}"
    elif cost.device == "cpu":
        total, where = total_memory(), "this machine"
    elif cost.device == "cuda":
        total, where = torch.cuda.get_device_properties(0).total_memory, "the GPU"
    if total is not None and cost.memory > total:
        part = cost.hungriest.name
        found.append(
            f"the study needs {_bytes(cost.memory)} of memory in {part} and {where} has "
            f"{_bytes(total)}; lower {lowers_memory(part)}, or use a smaller model"
        )
    return found


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
