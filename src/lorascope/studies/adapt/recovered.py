"""Numbers over the fits: what each recovers, and LoRA on the next block against LoRA on all."""

from __future__ import annotations

from lorascope.measures.recovered import next_share, recovered
from lorascope.studies.adapt.fits import at as fit_at
from lorascope.studies.adapt.fits import place_of, read_sums
from lorascope.studies.adapt.state import Adapted
from lorascope.workflows.measured import Measured


def all_recovered(state: Adapted) -> Measured:
    """Nats/token that each fit recovers."""
    return Measured(
        [recovered(read_sums(state.folder / fit_at(c)), place_of(c)) for c in state.asked.fits]
    )


def next_shares(state: Adapted) -> Measured:
    """Of every seed with a fit on the next block and one on all, around the reference."""
    found, cells = Measured(), state.asked.cells
    fits = [cell for name in ("single", "baselines") for cell in cells.get(name, [])]
    nearest = {
        (cell.seed, cell.rank): cell
        for cell in fits
        if cell.kind == "lora" and cell.blocks == "next" and len(cell.dictionaries) == 1
    }
    for whole in cells.get("reference", []):
        cell = nearest.get((whole.seed, whole.rank))
        if cell is not None and cell.dictionaries == whole.dictionaries:
            sums = [read_sums(state.folder / fit_at(one)) for one in (cell, whole)]
            found.estimates.append(next_share(sums[0], sums[1], place_of(cell)))
    return found
