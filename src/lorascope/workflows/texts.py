"""The texts of a study, as its settings ask for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lorascope.activations.categories import equal_numbers
from lorascope.activations.sources import RecordTally
from lorascope.activations.splits import Split, apart, split
from lorascope.activations.text import read_documents
from lorascope.workflows.settings import Texts


def read_split(texts: Texts, seen: Collection[str], seed: int) -> Split:
    """Documents to train dictionaries on and to measure on.

    Args:
        seen: digests of documents the adapters were trained on.

    Raises:
        InputError: a source cannot be read, or has too few documents of a kind.
    """
    tally = RecordTally()
    documents = read_documents(texts.sources, texts.documents, tally, texts.template)
    if texts.measure_on:
        measured = read_documents(texts.measure_on, tally=tally, template=texts.template)
        parts = apart(documents, measured, seen, seed, keep_seen=texts.keep_seen)
    else:
        parts = split(documents, texts.held_out, seen, seed, keep_seen=texts.keep_seen)
    parts = replace(parts, tally=tally)
    if texts.balance is None:
        return parts
    kinds = texts.balance.categories
    probe = equal_numbers(parts.probe, kinds, texts.balance.probe, "to train on")
    held_out = equal_numbers(parts.held_out, kinds, texts.balance.held_out, "to measure on")
    overlap = sum(d.digest in seen for d in probe)
    surplus = len(parts.probe) - len(probe) + len(parts.held_out) - len(held_out)
    return replace(parts, probe=probe, held_out=held_out, overlap=overlap, surplus=surplus)
