"""Held-out rows of one adapter at one site, in document order, and sums by document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.randomness import generator

CHUNK = 2048


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What the measures of one adapter at one site are computed on.

    Attributes:
        base: h_base, float32.
        delta: h_Δ of the same tokens.
        documents: index of each row's document; rows stand in document order.
    """

    base: Float[Tensor, "rows d"]
    delta: Float[Tensor, "rows d"]
    documents: Int[Tensor, " rows"]

    @property
    def adapted(self) -> Float[Tensor, "rows d"]:
        """h_adapted = h_base + h_Δ."""
        return self.base + self.delta

    def __len__(self) -> int:
        return len(self.documents)

    def first(self, rows: int) -> HeldOut:
        """The first `rows` rows (whole documents are not kept together at the cut)."""
        return HeldOut(self.base[:rows], self.delta[:rows], self.documents[:rows])

    @classmethod
    def load(cls, shards: Shards, site: str, adapter: str, most: int | None = None) -> HeldOut:
        """The rows of an activations folder, document by document.

        Where there are more than `most`, every document gives one stretch of rows up to a common
        length: intervals resample documents and need many of them.
        """
        origin = shards.tokens()
        order = torch.argsort(origin.document, stable=True)
        if most is not None:
            order = order[shared_out(origin.document[order], most, generator(0, "stretch"))]
        return cls(
            shards.load(site, BASE)[order],
            shards.load(site, adapter)[order],
            origin.document[order],
        )


def shared_out(
    documents: Int[Tensor, " rows"], most: int, random: torch.Generator
) -> Bool[Tensor, " rows"]:
    """Which rows to keep so that at most `most` are left, the longest documents cut first.

    A cut document gives a stretch that begins at a random row and goes on at its first row after
    its last, so that openings, which resemble one another, count no more than the rest.
    `documents` stand in order. Where even one row a document is too many, the first `most`
    documents give one each.
    """
    _, index, counts = documents.unique_consecutive(return_inverse=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    begin = (torch.rand(len(counts), generator=random) * counts).long()
    place = (torch.arange(len(documents)) - starts[index] - begin[index]) % counts[index]
    low, high = 0, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if counts.clamp(max=middle).sum() <= most else (low, middle - 1)
    return (place < low) if low else (place == 0) & (index < most)


def by_document(
    values: Float[Tensor, " rows"], documents: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, " documents"], Float[Tensor, " documents"]]:
    """(sum of values, number of rows) of every document that has rows."""
    _, index = documents.unique(return_inverse=True)
    count = int(index.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, index, values.double().cpu())
    ones = torch.ones(len(values), dtype=torch.float64)
    return sums, torch.zeros(count, dtype=torch.float64).index_add_(0, index, ones)


def chunks(rows: Float[Tensor, "rows d"]) -> Iterator[Float[Tensor, "chunk d"]]:
    """Rows in pieces small enough for [chunk, n_latents] tensors."""
    return iter(rows.split(CHUNK))


def rebuilt(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    """What a dictionary makes of rows, in its own precision, where the rows are."""
    parts = chunks(rows.to(dictionary.directions))
    return torch.cat([dictionary(part) for part in parts]).to(rows.device)
