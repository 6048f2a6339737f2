"""The feature browser's files in a run: `features/<site>-<adapter>/`.

A folder holds `latents.json` (what is said of the dictionary, and the table's columns) and
`details-000.json`, …: records of `BLOCK` latents each, in the table's order, those that write most
first. Latents that never fire are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.errors import InputError, did_you_mean
from lorascope.runs import read_json, write_atomically

# Latents of one file of records.
BLOCK = 128
# Latents, of those that write most, with long passages, neighbours and what they are built from.
WHOLE = 1024


@dataclass(frozen=True)
class Browsed:
    """The latents of one delta dictionary.

    Attributes:
        folder: where it was read from.
        head: site, adapter, rank, seed, sizes and chance levels.
        columns: {column: an entry for each latent that fires}.
    """

    folder: Path
    head: dict[str, Any]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["latent"])

    @property
    def blocks(self) -> int:
        """How many files of records there are."""
        return math.ceil(len(self) / BLOCK)

    def block(self, number: int) -> list[dict[str, Any]]:
        """The records of one file."""
        return list(read_json(self.path(number)))

    def path(self, number: int) -> Path:
        """The file that holds a block of records."""
        return self.folder / f"details-{number:03d}.json"

    def details(self, most: int) -> Iterator[dict[str, Any]]:
        """The first `most` records."""
        for number in range(math.ceil(min(most, len(self)) / BLOCK)):
            yield from self.block(number)[: most - number * BLOCK]


def write_latents(
    folder: Path,
    head: Mapping[str, Any],
    columns: Mapping[str, Sequence[Any]],
    details: Sequence[Mapping[str, Any]],
) -> None:
    """Write one dictionary's files."""
    write_atomically(folder / "latents.json", compact({**head, "columns": columns}))
    for start in range(0, len(details), BLOCK):
        name = f"details-{start // BLOCK:03d}.json"
        write_atomically(folder / name, compact(details[start : start + BLOCK]))


def read_latents(run: Path) -> list[Browsed]:
    """Every dictionary of a run that can be browsed, in the order of the sites and ranks."""
    found = []
    for path in sorted((run / "features").glob("*/latents.json")):
        head = read_json(path)
        columns = head.pop("columns")
        found.append(Browsed(path.parent, head, columns))
    return sorted(found, key=lambda each: _order(each.head))


def rounded(value: float) -> float | None:
    """Four significant digits; None for nan and infinities, which JSON lacks."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def matching(
    found: Sequence[Browsed], site: str | None, adapter: str | None, seed: int | None
) -> list[Browsed]:
    """The dictionaries that site, adapter and seed name; all where one of these is left out.

    Raises:
        InputError: there is none of that name.
    """
    left = list(found)
    for what, wanted in (("site", site), ("adapter", adapter), ("seed", seed)):
        if wanted is not None:
            name = _the_one(left, what, wanted)
            left = [each for each in left if str(each.head[what]) == name]
    return left


def choose_site(found: Sequence[Browsed], site: str | None) -> str:
    """The site, which may be left out if there is one.

    Raises:
        InputError: there is no such site, or several and none named.
    """
    return _the_one(found, "site", site)


def _the_one(found: Sequence[Browsed], what: str, wanted: object) -> str:
    known = list(dict.fromkeys(str(each.head[what]) for each in found))
    if wanted is None and len(known) > 1:
        raise InputError(
            f"say which {what}: --{what} {known[0]} for instance; there are {', '.join(known)}"
        )
    if wanted is not None and str(wanted) not in known:
        raise InputError(
            f'no {what} "{wanted}" to browse; there are {", ".join(known) or "none"}.'
            f"{did_you_mean(str(wanted), known)}"
        )
    return known[0] if wanted is None else str(wanted)


def _order(head: Mapping[str, Any]) -> tuple[Any, ...]:
    site = str(head["site"])
    number = site.rpartition(".")[2]
    rank = head["rank"]
    return (
        int(number) if number.isdecimal() else -1,
        site,
        math.inf if rank is None else rank,
        head["adapter"],
    )


def compact(data: object) -> str:
    """JSON on one line, without nan."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
