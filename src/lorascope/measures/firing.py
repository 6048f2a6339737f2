"""Which latents fire: density (mean active latents a token) and the share that never fires."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.chance import norm_matched
from lorascope.measures.rows import by_document, chunks
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NORM_MATCHED
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import wilson_interval

NULL_ROWS = 4096
NULL_REPEATS = 5


@dataclass(frozen=True, eq=False)
class Firing:
    """Active latents of a dictionary over rows.

    Attributes:
        per_row: how many latents are active on each row.
        per_latent: on how many rows each latent is active.
    """

    per_row: Float[Tensor, " rows"]
    per_latent: Int[Tensor, " n"]

    @property
    def alive(self) -> Bool[Tensor, " n"]:
        """Latents active on at least one row."""
        return self.per_latent > 0


@torch.no_grad()
def firing(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> Firing:
    """Count active latents, a chunk of rows at a time."""
    per_row, per_latent = [], torch.zeros(dictionary.n_latents, dtype=torch.long)
    for chunk in chunks(rows):
        active = dictionary.encode(chunk) > 0
        per_row.append(active.sum(1).float())
        per_latent += active.sum(0).cpu()
    return Firing(torch.cat(per_row), per_latent)


def firing_estimates(
    dictionary: Dictionary,
    found: Firing,
    rows: Float[Tensor, "rows d"],
    documents: Int[Tensor, " rows"],
    place: Key,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
) -> list[Estimate]:
    """Density and dead share beside norm-matched random vectors through the same dictionary.

    A dead share depends on how many rows there were, so its null reads as many random rows.

    Args:
        repeats: draws of the null; 0 for the numbers alone.
    """
    densities, dead = [], []
    for repeat in range(repeats):
        random = generator(seed, "firing", repeat)
        drawn = firing(dictionary, norm_matched(rows[:NULL_ROWS], random))
        densities.append(drawn.per_row.double().mean().item())
        dead.append((~drawn.alive).double().mean().item())
    some = found if len(rows) <= NULL_ROWS else firing(dictionary, rows[:NULL_ROWS])
    n_dead = int((~some.alive).sum())
    mean, around = ratio(*by_document(found.per_row, documents))
    density = Estimate(
        "density",
        mean,
        around,
        len(rows),
        "latents/token",
        _drawn(densities),
        place,
    )
    return [
        density,
        Estimate(
            "dead_share",
            n_dead / dictionary.n_latents,
            wilson_interval(n_dead, dictionary.n_latents),
            dictionary.n_latents,
            "share",
            _drawn(dead),
            place,
        ),
    ]


def _drawn(values: list[float]) -> tuple[Null, ...]:
    return (Null.drawn(NORM_MATCHED, values),) if values else ()
