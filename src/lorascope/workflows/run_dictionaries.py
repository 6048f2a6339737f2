"""The dictionaries in a run folder: what each is called, and those brought along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lorascope.errors import InputError
from lorascope.fits.wrapper import identity
from lorascope.runs import write_json
from lorascope.stages import Work, stage
from lorascope.workflows.settings import Control

DICTIONARIES, CHECKPOINTS = "dictionaries", "checkpoints"


@dataclass(frozen=True)
class AuditDictionary:
    """One dictionary to train.

    Attributes:
        target: what it is trained on: the base stream, a delta, or a control made from that delta.
        adapter: whose delta; a null adapter's too.
        draw: which draw of Gaussian rows.
        setting: what is unlike the study's own settings, `l1=0.05` for one of an ablation.
    """

    target: Literal["base", "delta", "gaussian"] | Control
    site: str
    adapter: str
    seed: int
    setting: str = ""
    draw: int | None = None

    @property
    def name(self) -> str:
        """Its folder below `dictionaries/`."""
        drawn = "" if self.draw is None else f"draw{self.draw}"
        parts = [self.site, self.target, self.adapter, f"seed{self.seed}", drawn, self.setting]
        return "-".join(part for part in parts if part)


@stage(version=1, title="opening base dictionaries")
def note_brought(work: Work, *, site: str, address: str, content: str) -> None:
    """Keep what a brought dictionary is, so that what reads it is made again where it changes.

    Raises:
        InputError: it has been replaced since the study was read.
    """
    if identity(work.state.brought[site]) != content:
        raise InputError(f"{address}: has changed since the study was read; run it again")
    record = {"site": site, "address": address, "identity": content}
    write_json(work.folder / "brought.json", record)


def brought_at(site: str) -> str:
    """The stage of the dictionary brought for a site."""
    return f"{DICTIONARIES}/{site}-brought"
