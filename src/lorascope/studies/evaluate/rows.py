"""Rows of the streams that a subject's dictionaries read, with the document of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.tokens import Window, batches
from lorascope.errors import InputError
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.studies.evaluate.subjects import OpenedSubject

BATCH_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class StreamRows:
    """Rows at one site, special tokens left out.

    Attributes:
        rows: float32, in main memory.
        documents: the document of each.
    """

    rows: Float[Tensor, "rows d"]
    documents: Int[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.rows)


@torch.no_grad()
def stream_rows(
    subject: OpenedSubject, windows: Sequence[Window], *, adapter: bool
) -> dict[Site, StreamRows]:
    """The rows that the dictionaries read of some windows, by site.

    Raises:
        InputError: no token is left once special ones are masked.
    """
    rows: dict[Site, list[Tensor]] = {site: [] for site in subject.dictionaries}
    documents: list[Tensor] = []
    padding = padding_id(subject.tokenizer)
    for batch in batches(windows, subject.tokenizer, padding, BATCH_TOKENS):
        kept = batch.kept
        if not bool(kept.any()):
            continue
        documents.append(batch.documents[:, None].expand_as(kept)[kept])
        for site, stream in subject.streams(batch, adapter=adapter).items():
            rows[site].append(stream[kept.to(stream.device)].cpu())
    if not documents:
        raise InputError("no token is left once special tokens are masked; give longer texts")
    whose = torch.cat(documents)
    return {site: StreamRows(torch.cat(parts), whose) for site, parts in rows.items()}
