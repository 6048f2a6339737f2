"""One vector a text: the stream, and the latents of dictionaries, pooled over its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import Window, batches, windows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.studies.evaluate.settings import Pool
from lorascope.studies.evaluate.subjects import OpenedSubject

STREAM = "stream"
# Padded tokens of a batch: on a CPU few enough that a block's activations stay in its cache.
_ON_CPU, _ELSEWHERE = 1024, 8192
Pooled = dict[str, Float[Tensor, "texts n"]]


@torch.no_grad()
def pooled(
    subject: OpenedSubject,
    texts: Sequence[str],
    site: Site,
    dictionaries: Mapping[str, Dictionary],
    *,
    adapter: bool,
    context: int,
    pool: Pool = "mean",
) -> Pooled:
    """{`STREAM`: the stream's own, name: a dictionary's latents}, one row a text, float32.

    Special tokens are left out; a text's first `context` tokens are read.

    Raises:
        InputError: a text has no token that counts.
    """
    documents = [Document((Segment(text),)) for text in texts]
    first: dict[int, int] = {}
    made: list[Window] = []
    for window in windows(documents, subject.tokenizer, context):
        if window.document not in first:
            first[window.document] = len(made)
            made.append(window)
    widths = {name: one.n_latents for name, one in dictionaries.items()}
    found = {name: torch.zeros(len(texts), n) for name, n in widths.items()}
    seen = torch.zeros(len(texts), dtype=torch.bool)
    size = _ON_CPU if subject.device.type == "cpu" else _ELSEWHERE
    for batch in batches(made, subject.tokenizer, padding_id(subject.tokenizer), size):
        stream = subject.streams(batch, adapter=adapter)[site]
        weights = pool_weights(batch.kept, pool).to(stream.device)
        if STREAM not in found:
            found[STREAM] = torch.zeros(len(texts), stream.shape[-1])
        where = batch.documents
        found[STREAM][where] = torch.einsum("bs,bsd->bd", weights, stream).cpu()
        seen[where] = batch.kept.any(1)
        counts = weights > 0
        owner = counts.nonzero()[:, 0]
        rows, own = stream[counts], weights[counts]
        for name, dictionary in dictionaries.items():
            codes = dictionary.encode(rows.to(dictionary.directions)).float()
            sums = torch.zeros(len(where), codes.shape[1], device=codes.device)
            found[name][where] = sums.index_add_(0, owner, codes * own[:, None]).cpu()
    if not bool(seen.all()):
        blank = texts[int((~seen).nonzero()[0])]
        raise InputError(
            f"a text has no token that counts: {blank[:60]!r}; leave out empty and blank texts"
        )
    return found


def pool_weights(kept: Bool[Tensor, "batch seq"], pool: Pool) -> Float[Tensor, "batch seq"]:
    """What each token counts: 1/n of n kept ones, or 1 for the last kept one."""
    if pool == "mean":
        return kept.float() / kept.sum(1, keepdim=True).clamp(min=1)
    places = torch.arange(kept.shape[1]).expand_as(kept)
    last = torch.where(kept, places, -1).amax(1, keepdim=True)
    return ((places == last) & kept).float()
