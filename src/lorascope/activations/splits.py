"""Disjoint rows: documents fall into splits by hash; those an adapter has seen are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lorascope.activations.text import Document


def share_of(document: Document, seed: int, purpose: str) -> float:
    """A number in [0, 1) fixed by text, seed and purpose, whatever file the document stands in.

    Splits for different purposes are independent of one another.
    """
    digest = hashlib.sha256(f"{purpose}:{seed}:{document.digest}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def by_hash(
    documents: Sequence[Document], share: float, seed: int, purpose: str
) -> tuple[list[Document], list[Document]]:
    """(first, second) with about `share` of the documents in the first, decided by hash."""
    first = [d for d in documents if share_of(d, seed, purpose) < share]
    second = [d for d in documents if share_of(d, seed, purpose) >= share]
    return first, second


@dataclass(frozen=True)
class Split:
    """Documents to train dictionaries on, documents to measure on, and how many were left out."""

    probe: list[Document]
    held_out: list[Document]
    excluded: int


def split(
    documents: Sequence[Document], held_out: float, seen: Collection[str], seed: int
) -> Split:
    """Probe and held-out documents without any that an adapter was trained on.

    Args:
        held_out: share of the documents to measure on.
        seen: digests of the adapters' own training documents.
    """
    kept = [d for d in documents if d.digest not in seen]
    # In random order, so that the first rows of a file are rows of every kind.
    kept.sort(key=lambda d: share_of(d, seed, "order"))
    measured, probe = by_hash(kept, held_out, seed, "measure")
    return Split(probe, measured, len(documents) - len(kept))
