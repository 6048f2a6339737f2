"""Deltas in one call: what an adapter adds to the stream on some texts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lorascope.activations.collect import collect
from lorascope.activations.settings import Capture
from lorascope.activations.shards import RowSource, Shards
from lorascope.activations.text import Document, Segment, read_documents
from lorascope.activations.tokens import windows
from lorascope.config import digest
from lorascope.errors import require_kind
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import resolve_sites


def deltas(
    model: AdaptedModel,
    texts: str | Sequence[str] | Sequence[Document],
    sites: Sequence[str],
    adapter: str,
    *,
    capture: Capture | None = None,
    folder: str | Path | None = None,
) -> dict[str, RowSource]:
    """h_Δ = h_adapted − h_base at every kept token, by site.

    Args:
        texts: an address `read_documents` understands, a list of texts, or documents.
        sites: names of residual-stream sites, `layers.12` = output of block 12.
        adapter: name of one of the model's adapters.
        folder: where the rows are kept; a temporary folder of this process by default.

    Returns:
        Rows on disk that behave like an iterable of [rows, d_model] chunks; `fit` takes them.

    Raises:
        InputError: unknown adapter, unknown site, no text, or an argument of the wrong kind.

    Examples:
        >>> model = ls.load("embedded", {"mine": "runs/adapters/adapters/r2"})
        >>> found = ls.deltas(model, ["A river runs north."], ["layers.2", "layers.5"], "mine")
        >>> list(found), found["layers.5"].d_model
        (['layers.2', 'layers.5'], 192)
    """
    require_kind(model, AdaptedModel, "the model", 'load("MODEL", adapters={"r4": "FOLDER"})')
    require_kind(adapter, str, "the adapter", f"the name of one of {', '.join(model.adapters)}")
    listed = 'a list of names, ["layers.5"] for instance'
    require_kind(sites, (list, tuple), "sites", listed)
    for site in sites:
        require_kind(site, str, "one of the sites", "its name")
    model.info(adapter)  # refuses an unknown name
    settings = capture or Capture()
    resolved = resolve_sites(model.n_blocks, sites)
    documents = documents_of(texts)
    found = windows(documents, model.tokenizer, min(settings.context, model.context_length))
    target = Path(folder) if folder is not None else Path(_scratch())
    target.mkdir(parents=True, exist_ok=True)
    identity = digest([model.id, settings.plain(), [d.digest for d in documents]])
    collect(model, found, resolved, target, settings, identity, adapters=[adapter])
    shards = Shards.open(target)
    return {site.name: shards.source(site.name, adapter) for site in resolved}


_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []


def _scratch() -> str:
    """A folder that goes when the process does."""
    _TEMPORARY.append(tempfile.TemporaryDirectory(prefix="lorascope-"))
    return _TEMPORARY[-1].name


def documents_of(texts: str | Sequence[str] | Sequence[Document]) -> list[Document]:
    """Documents of an address, of a list of texts, or as they are."""
    if isinstance(texts, str):
        return read_documents(texts)
    wanted = "an address of texts, or a list of texts or documents"
    require_kind(texts, Sequence, "texts", wanted)
    for text in texts:
        require_kind(text, (str, Document), "one of the texts", wanted)
    return [t if isinstance(t, Document) else Document((Segment(t),)) for t in texts]
