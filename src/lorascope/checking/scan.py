"""Scan folders of adapters and say which to look at more closely."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.checking.ranking import Ranked, ranked
from lorascope.checking.scan_tables import write_tables
from lorascope.checking.scanning import adapters_in, scan_rows
from lorascope.checking.settings import ScanSettings
from lorascope.locking import locked
from lorascope.progress import Reporter


@dataclass(frozen=True)
class Scan:
    """A finished scan.

    Attributes:
        adapters: by what stands out.
        tables: {"csv", "parquet", "html": file}.
        settings: what was asked for.
    """

    adapters: tuple[Ranked, ...]
    tables: dict[str, Path]
    settings: ScanSettings

    @property
    def review(self) -> list[Ranked]:
        """Those to look at: broken ones, and those that stand out at the rate."""
        return [one for one in self.adapters if one.review]

    @property
    def held_against_others(self) -> int:
        """How many had enough adapters of their base and shape beside them."""
        return sum(one.p == one.p for one in self.adapters)

    def sentences(self) -> list[str]:
        """What was found, and at which rate it is wrong."""
        total, broken = len(self.adapters), sum(one.broken for one in self.adapters)
        named = len(self.review) - broken
        rate = f"{self.settings.rate:.0%}"
        adapters = "adapter" if total == 1 else "adapters"
        return [
            f"{total:,} {adapters}: {broken:,} with errors or unreadable; {named:,} of "
            f"{self.held_against_others:,} held against others of their base and shape stand out",
            f"of those that stand out at most {rate} are expected to do so by chance "
            "(Benjamini & Hochberg, if the others' logarithms are normal)",
        ]


def scan_folders(
    folders: Sequence[Path], out: Path, settings: ScanSettings, reporter: Reporter
) -> Scan:
    """Read every adapter in or below the folders, and rank them; the same `out` goes on.

    Raises:
        InputError: there are no adapters, or another process scans into `out`.
    """
    paths = adapters_in(folders)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        rows = scan_rows(paths, out, settings.workers, reporter)
        found = ranked(rows, settings.rate, settings.least)
        scan = Scan(tuple(found), {}, settings)
        scan.tables.update(write_tables(out, found, scan.sentences()))
    return scan


def escalation(one: Ranked) -> list[str]:
    """The commands that look at an adapter more closely."""
    path, base = shlex.quote(one.path), one.row["base"]
    if one.broken or one.row["norm"] is None:
        return [f"lorascope check {path}"]
    model = f" --model {shlex.quote(base)}" if base else " --model BASE"
    return [f"lorascope check {path}{model}", f"lorascope audit {path}{'' if base else model}"]
