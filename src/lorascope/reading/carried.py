"""How much of a phrase remains without a part of the adapter's effect."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorascope.runs import read_json, write_atomically
from lorascope.stats.intervals import Interval

# Of all phrases together.
ALL = ""
# The delta at a site itself, of which latents take out a part.
WHOLE = "whole"
# A carrier takes so much away, and what it is matched with no more than this.
HALF, _ALIKE = 0.5, 0.1
_FILE = "carriers.json"


@dataclass(frozen=True)
class Carrier:
    """What is left of a phrase without one part of the adapter's effect.

    Attributes:
        phrase: as it is shown; "" for all phrases together.
        part: "delta", "base" (what a base latent's firing changes by), "whole" (the delta at a
            site, or principal directions of it) or "modules".
        name: in words.
        site: where the latents or directions are; "" for modules.
        latents: their numbers, what would cost most first; empty for others.
        whole, left: continuations that hold the phrase with everything in place, and without it;
            summed over the phrases for all together.
        taken: share of them taken away, 1 − left/whole.
        interval: 95 %, over prompts.
        matched: the same of latents, or sets of as many, that fire as often and as strongly; of as
            many random directions of the delta's covariance.
        size: of modules, their share of the update's squared norm; of directions, their share of
            the delta's; nan for latents.
        directions: of how many principal directions of the delta it is; 0 for all of it and others.
    """

    phrase: str
    part: str
    name: str
    site: str
    latents: tuple[int, ...]
    whole: int
    left: int
    taken: float
    interval: Interval
    matched: tuple[float, ...] = ()
    size: float = math.nan
    directions: int = 0

    @property
    def chance(self) -> float:
        """What is matched with it takes away, on average; nan without any."""
        return sum(self.matched) / len(self.matched) if self.matched else math.nan

    @property
    def of_latents(self) -> bool:
        """Whether latents are taken out."""
        return self.part in ("delta", "base")

    @property
    def carries(self) -> bool:
        """Whether half goes without it, and without matched latents a tenth at most."""
        return self.taken >= HALF and (not self.of_latents or self.chance <= _ALIKE)

    @classmethod
    def revived(cls, one: Mapping[str, Any]) -> Carrier:
        """From plain data, in which nan is null."""
        low, high = (math.nan if end is None else end for end in one["interval"])
        size = math.nan if one["size"] is None else one["size"]
        taken = math.nan if one["taken"] is None else one["taken"]
        changed = {"latents": tuple(one["latents"]), "matched": tuple(one["matched"])}
        return cls(**{**one, **changed, "interval": (low, high), "size": size, "taken": taken})


def write_carriers(found: Sequence[Carrier], folder: Path) -> None:
    """Write what was found into a folder."""
    plain = [finite(asdict(one)) for one in found]
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / _FILE, text + "\n")


def read_carriers(folder: Path) -> list[Carrier]:
    """What `write_carriers` left in a folder; nothing where there is none."""
    path = folder / _FILE
    return [Carrier.revived(one) for one in read_json(path)] if path.is_file() else []


def finite(data: Any) -> Any:
    """Plain data with None for what JSON has no number for."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    return [finite(item) for item in data] if isinstance(data, list | tuple) else data
