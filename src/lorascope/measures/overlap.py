"""Do the base dictionary's latents that fire on the delta also fire on the base stream?"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.chance import shifted
from lorascope.measures.rows import HeldOut, by_document, chunks
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import INDEPENDENT, SHIFTED
from lorascope.stats.documents import one_less, ratio
from lorascope.stats.intervals import or_point

MOST_ROWS = 8192
NULL_REPEATS = 5


@torch.no_grad()
def active(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> Bool[Tensor, "rows n"]:
    """Which latents fire on which rows."""
    return torch.cat([dictionary.encode(chunk) > 0 for chunk in chunks(rows)])


def shared(
    on_delta: Bool[Tensor, "rows n"], on_base: Bool[Tensor, "rows n"]
) -> Float[Tensor, " rows"]:
    """|A ∩ B| / |A| a row, A active on the delta, B on the base; nan where A is empty."""
    both = [(a & b).sum(1).float() for a, b in zip(chunks(on_delta), chunks(on_base), strict=True)]
    return torch.cat(both) / on_delta.sum(1).float()


def expected(
    on_delta: Bool[Tensor, "rows n"], on_base: Bool[Tensor, "rows n"]
) -> Float[Tensor, " rows"]:
    """The same share if every latent fired on the base at its own rate, whatever the row."""
    rates = on_base.float().mean(0)
    sums = torch.cat([chunk.float() @ rates for chunk in chunks(on_delta)])
    return sums / on_delta.sum(1).float()


def overlap_estimates(
    dictionary: Dictionary,
    rows: HeldOut,
    place: Key,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
) -> list[Estimate]:
    """Overlap and weakly aligned share (table 8) of the base dictionary, with chance levels.

    Computed on the first 8,192 rows. Returns nothing where no latent fires on any delta.

    Args:
        repeats: draws of the rows shifted; 0 to leave that null out.
    """
    rows = rows.first(MOST_ROWS)
    on_delta, on_base = active(dictionary, rows.delta), active(dictionary, rows.base)
    fired = on_delta.any(1)
    if not fired.any():
        return []
    found = shared(on_delta, on_base)[fired]
    independent = expected(on_delta, on_base)[fired]
    documents = rows.documents[fired]
    value, interval = ratio(*by_document(found, documents))
    level, around = ratio(*by_document(independent, documents))
    chances = [Null(INDEPENDENT, level, *or_point(level, around))]
    longest = int(rows.documents.unique(return_counts=True)[1].max())
    if repeats and 2 * longest <= len(rows):
        moved = [
            shared(on_delta, shifted(on_base, longest, generator(seed, "overlap shift", i)))[fired]
            for i in range(repeats)
        ]
        levels = [drawn.double().mean().item() for drawn in moved]
        chances.append(Null.drawn(SHIFTED, levels))
    overlap = Estimate(
        "overlap",
        value,
        interval,
        int(fired.sum()),
        "share",
        tuple(chances),
        replace(place, dictionary="base"),
    )
    return [overlap, complement(overlap)]


def complement(overlap: Estimate) -> Estimate:
    """The weakly aligned share: 1 − overlap, chance levels and intervals turned round with it."""
    value, interval = one_less((overlap.value, overlap.interval))
    return replace(
        overlap,
        measure="weakly_aligned",
        value=value,
        interval=interval,
        nulls=tuple(Null(c.name, 1 - c.level, 1 - c.high, 1 - c.low) for c in overlap.nulls),
    )
