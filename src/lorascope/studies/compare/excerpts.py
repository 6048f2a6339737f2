"""Where two deltas differ most, and where a latent fires, as stretches of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.comparison import DeltaPair
from lorascope.measures.rows import by_document, chunks
from lorascope.results import Key
from lorascope.studies.compare.pairing import Paired

BEFORE, AFTER = 24, 12
# Tokens listed of one document, and characters shown of one.
_OF_ONE = 3
_CHARACTERS = 600


class Excerpts:
    """Stretches of the compared texts, as rows for a table."""

    def __init__(self, paired: Paired) -> None:
        self._paired = paired
        self._tokenizer = paired.first.run.tokenizer

    def differences(self, rows: DeltaPair, site: str, most: int) -> list[dict[str, Any]]:
        """Documents, then tokens, with the largest ‖h_Δ − h_Δ′‖, as multiples of its mean."""
        apart = (rows.first - rows.second).norm(dim=-1).double()
        apart = apart / apart.mean()
        sums, counts = by_document(apart, rows.documents)
        means = sums / counts
        names = rows.documents.unique()
        found = []
        for rank, place in enumerate(means.argsort(descending=True)[:most].tolist(), start=1):
            document = names[place]
            within = (rows.documents == document).nonzero().squeeze(1)
            row = int(within[apart[within].argmax()])
            found.append(self._row("document", site, rank, row, means[place].item()))
        for rank, row in enumerate(self._spread(apart, most, _OF_ONE), start=1):
            found.append(self._row("token", site, rank, row, apart[row].item()))
        return found

    @torch.no_grad()
    def contexts(
        self,
        dictionary: Dictionary,
        delta: Float[Tensor, "rows d"],
        latents: Int[Tensor, " listed"],
        place: Key,
        most: int,
    ) -> list[dict[str, Any]]:
        """The strongest activations of each latent, one a document."""
        if not len(latents):
            return []
        z = torch.cat([dictionary.encode(part)[:, latents] for part in chunks(delta)])
        found = []
        for column, latent in enumerate(latents.tolist()):
            for rank, row in enumerate(self._spread(z[:, column], most, 1), start=1):
                context = self._row("latent", place.site, rank, row, z[row, column].item())
                found.append(
                    {**context, "adapter": place.adapter, "seed": place.seed, "latent": latent}
                )
        return found

    def _spread(self, values: Tensor, most: int, of_one: int) -> Iterator[int]:
        """Rows of the largest positive values, at most so many of one document."""
        counts: dict[int, int] = {}
        documents = self._paired.documents
        for row in values.argsort(descending=True).tolist():
            if sum(counts.values()) == most or values[row] <= 0:
                return
            document = int(documents[row])
            if counts.get(document, 0) < of_one:
                counts[document] = counts.get(document, 0) + 1
                yield row

    def _row(self, kind: str, site: str, rank: int, row: int, value: float) -> dict[str, Any]:
        paired = self._paired
        window = paired.trace.windows[int(paired.windows[row])]
        position = int(paired.positions[row])
        document = paired.trace.documents[window.document]
        start = max(0, position - BEFORE)
        before = self._decoded(window.ids[start:position])
        through = self._decoded(window.ids[start : position + 1])
        to_end = self._decoded(window.ids[start : position + 1 + AFTER])
        return {
            "kind": kind,
            "site": site,
            "rank": rank,
            "value": value,
            "document": document.digest,
            "position": position,
            "response": window.response[position],
            "before": before,
            # A token's own space shows only behind another.
            "token": through[len(before) :] or self._decoded([window.ids[position]]),
            "after": to_end[len(through) :],
            "text": document.text[:_CHARACTERS],
        }

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))
