"""Disjoint rows: documents fall into splits by hash; those an adapter has seen are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from lorascope.activations.sources import RecordTally
from lorascope.activations.text import Document

# Where no share to measure on is asked: a fifth, and of few documents at least as many as intervals
# are worth having on, or half.
HELD_OUT = 0.2
MEASURED = 20


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
    """Documents to train dictionaries on, documents to measure on, and how many were left out.

    Attributes:
        excluded: documents an adapter was trained on, or that stand on the other side.
        overlap: how many of the probe documents an adapter was trained on; 0 unless they were
            asked to be kept.
        surplus: documents left out for another reason.
        tally: what became of the records before they were documents.
    """

    probe: list[Document]
    held_out: list[Document]
    excluded: int
    overlap: int = 0
    surplus: int = 0
    tally: RecordTally = field(default_factory=RecordTally)


def split(
    documents: Sequence[Document],
    held_out: float | None,
    seen: Collection[str],
    seed: int,
    *,
    keep_seen: bool = False,
) -> Split:
    """Probe and held-out documents without any that an adapter was trained on.

    Args:
        held_out: share of the documents to measure on; None: a fifth, but 20 documents or, of
            fewer than 40 that no adapter has seen, half.
        seen: digests of the adapters' own training documents.
        keep_seen: leave those among the probe documents; never among the held-out ones.
    """
    # In random order, so that the first rows of a file are rows of every kind.
    ordered = _ordered(documents, seed)
    measured, probe = by_hash(ordered, HELD_OUT if held_out is None else held_out, seed, "measure")
    if held_out is None:
        measured, probe = _enough(ordered, {d.digest for d in measured}, seen, seed)
    return _without_seen(probe, measured, seen, len(documents), keep_seen)


def apart(
    documents: Sequence[Document],
    measured: Sequence[Document],
    seen: Collection[str],
    seed: int,
    *,
    keep_seen: bool = False,
) -> Split:
    """As `split`, with the documents to measure on given; probe documents among them go.

    Args:
        documents: to train dictionaries on.
        measured: to measure on.
        seen: digests of the adapters' own training documents.
        keep_seen: leave those among the probe documents; never among the held-out ones.
    """
    digests = {d.digest for d in measured}
    total = len({d.digest for d in documents} | digests)
    probe = [d for d in _ordered(documents, seed) if d.digest not in digests]
    return _without_seen(probe, _ordered(measured, seed), seen, total, keep_seen)


def _enough(
    ordered: list[Document], measured: set[str], seen: Collection[str], seed: int
) -> tuple[list[Document], list[Document]]:
    """(measured, probe) with as many documents to measure on as intervals are worth having on."""
    unseen = sorted(
        {d.digest: share_of(d, seed, "measure") for d in ordered if d.digest not in seen}.items(),
        key=lambda item: item[1],
    )
    fewest = min(MEASURED, len(unseen) // 2)
    chosen = measured | {digest for digest, _ in unseen[:fewest]}
    first = [d for d in ordered if d.digest in chosen]
    return first, [d for d in ordered if d.digest not in chosen]


def _ordered(documents: Sequence[Document], seed: int) -> list[Document]:
    return sorted(documents, key=lambda d: share_of(d, seed, "order"))


def _without_seen(
    probe: list[Document],
    measured: list[Document],
    seen: Collection[str],
    total: int,
    keep_seen: bool,
) -> Split:
    held_out = [d for d in measured if d.digest not in seen]
    kept = probe if keep_seen else [d for d in probe if d.digest not in seen]
    overlap = sum(d.digest in seen for d in kept)
    return Split(kept, held_out, total - len(kept) - len(held_out), overlap)
