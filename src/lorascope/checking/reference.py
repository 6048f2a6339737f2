"""An adapter beside ordinary ones: numbers that depend on neither the base nor the size.

The table that comes with the package is of adapters that `bench/resembling.py` trains on the
embedded model; `scripts/write_reference_table.py` makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lorascope.checking.chance import level_of_norm, random_factors
from lorascope.checking.findings import Finding, listed
from lorascope.checking.folders import SAFE
from lorascope.checking.reading import FilesRead, read_adapter
from lorascope.checking.scanning import adapters_in
from lorascope.errors import InputError
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ORDINARY

MEASURE = "check.ordinary"
# What each number is, by its name in the table.
NUMBERS: Mapping[str, str] = {
    "alignment": "norm over that of random factors",
    "effective rank": "effective rank over the rank",
    "stable rank": "stable rank over the rank",
    "largest module": "largest norm over the modules' root mean square",
}
# Fewer adapters have no range to lie outside of.
FEWEST = 16
_TABLE = "reference-1.json"


@dataclass(frozen=True)
class Reference:
    """Ordinary adapters.

    Attributes:
        what: which, in words.
        rows: {number: its value in every adapter}.
    """

    what: str
    rows: Mapping[str, tuple[float, ...]]

    @property
    def count(self) -> int:
        """How many adapters."""
        return len(next(iter(self.rows.values())))


def numbers_of(read: FilesRead) -> dict[str, float] | None:
    """Those of `NUMBERS`; None for an adapter whose updates are all zero, or that is no LoRA."""
    moving = [module for module in read.modules if module.norm > 0]
    if not moving:
        return None
    draws = [random_factors(*module.shape).alignment for module in moving]
    level = level_of_norm([module.factors for module in moving], draws).mean
    norm = math.hypot(*(module.norm for module in moving))
    most = [min(module.shape) for module in moving]
    count = len(moving)
    largest = max(module.norm for module in moving)

    def mean(values: Sequence[float]) -> float:
        return math.fsum(v / k for v, k in zip(values, most, strict=True)) / count

    return {
        "alignment": norm / level,
        "effective rank": mean([module.effective_rank for module in moving]),
        "stable rank": mean([module.stable_rank for module in moving]),
        "largest module": largest / norm * math.sqrt(count),
    }


def shipped() -> Reference:
    """The table that comes with the package."""
    text = files("lorascope.checking").joinpath(_TABLE).read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return Reference(found["what"], {n: tuple(found["numbers"][n]) for n in NUMBERS})


def of_folder(folder: str, but: Path | None = None) -> Reference:
    """Of the adapters in or below a folder; those that have errors are left out, and `but`.

    Raises:
        InputError: the folder does not exist, or holds fewer than 16 adapters that can be read.
    """
    rows = []
    for path in adapters_in([Path(folder).expanduser()]):
        if but is not None and Path(path).resolve() == but.resolve():
            continue
        try:
            read = read_adapter(path)
        except InputError:
            continue
        numbers = None if read.has_errors else numbers_of(read)
        if numbers is not None:
            rows.append(numbers)
    if len(rows) < FEWEST:
        raise InputError(
            f'--reference "{folder}" holds {len(rows)} LoRA adapters without errors beside the one '
            f"that is checked: give a folder of {FEWEST} or more"
        )
    return Reference(f'"{folder}"', {n: tuple(row[n] for row in rows) for n in NUMBERS})


def held_against(read: FilesRead, reference: Reference) -> list[Estimate]:
    """Each number beside those of ordinary adapters; none where the adapter has none."""
    own = numbers_of(read)
    if own is None:
        return []
    found = []
    for name, value in own.items():
        others = np.array(reference.rows[name])
        low, high = (float(np.quantile(others, q)) for q in (0.025, 0.975))
        above, below = int((others >= value).sum()), int((others <= value).sum())
        p = min(1.0, 2 * (1 + min(above, below)) / (1 + len(others)))
        null = Null(ORDINARY, float(others.mean()), low, high, p=p, draws=len(others))
        key = Key(adapter=read.name, setting=name)
        n = len(read.modules)
        found.append(Estimate(MEASURE, value, (value, value), n, "ratio", (null,), key))
    return found


def findings(estimates: Sequence[Estimate], reference: Reference) -> list[Finding]:
    """A note where a number lies beyond every ordinary adapter's."""
    beyond = []
    for one in estimates:
        others = reference.rows[one.key.setting]
        if not min(others) <= one.value <= max(others):
            told = f"{one.value:.3g}, they {min(others):.3g} to {max(others):.3g}"
            beyond.append(f"{NUMBERS[one.key.setting]} ({told})")
    if not beyond:
        return []
    # Of a number that is like the others', one of n + 1 is the largest and one the smallest.
    chance = 2 / (1 + reference.count)
    message = (
        f"beyond all {reference.count} ordinary adapters ({reference.what}): "
        f"{listed(beyond, len(NUMBERS))}; each is so by chance in {chance:.0%} of ordinary adapters"
    )
    return [Finding("unlike-ordinary", "note", message, SAFE)]
