"""Capture: the base once and each adapter's delta, at the chosen sites, from one model in memory.

1. For every batch of windows, run the base as far as the last site.
2. Run each adapter on the same batch and subtract in float32.
3. Drop padding and special tokens, count them, and hand the rows to the shard writer.
4. At the end, find rows whose base norm is an outlier at any site (attention sinks) and list them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.activations.batch import TokenRows, delta
from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE, ShardWriter
from lorascope.activations.tokens import TokenBatch, Window, batches, require_rows
from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel
from lorascope.models.hooks import capture, run_until
from lorascope.models.load import padding_id
from lorascope.models.sanity_checks import nothing_at
from lorascope.models.sending import places
from lorascope.models.sites import Site

Advance = Callable[[int], None]
# Logits of one pass: a quarter of a gigabyte in float32.
_LOGITS = 2**26
# Runs the whole of a variant's model on a batch, for what its outputs say.
Whole = Callable[[str, nn.Module, TokenBatch], None]


@dataclass
class _Counts:
    special: int = 0
    base_norms: dict[Site, list[Tensor]] = field(default_factory=dict)
    live: set[tuple[Site, str]] = field(default_factory=set)


def forward(
    model: AdaptedModel,
    variant: str,
    sites: Sequence[Site],
    batch: TokenBatch,
    whole: Whole | None = None,
) -> dict[Site, Float[Tensor, "batch seq d"]]:
    """The stream at `sites` under one variant, run no deeper than the last of them.

    Args:
        whole: runs the model to its end instead, where the batch has a response to predict.
    """
    ids, mask = batch.inputs(model.device)
    with model.variant(variant) as module:
        if whole is None or not bool(batch.response[:, 1:].any()):
            return run_until(module, sites, ids, mask)
        with torch.no_grad(), capture(module, sites, attention_mask=mask, stop=False) as streams:
            whole(variant, module, batch)
        return streams


def collect(
    model: AdaptedModel,
    found: Sequence[Window],
    sites: Sequence[Site],
    folder: Path,
    settings: Capture,
    identity: str,
    *,
    adapters: Sequence[str] | None = None,
    whole: Whole | None = None,
    advance: Advance = lambda tokens: None,
) -> None:
    """Write base activations and every adapter's delta at `sites` as shards into `folder`.

    Args:
        found: windows of the documents to capture.
        identity: what these activations are made from; a reader refuses shards of another.
        adapters: which of the model's adapters and null adapters; all of them by default.
        whole: takes what it wants from the model's outputs on batches with responses, under the
            base and every adapter; the streams are captured in the same pass.
        advance: told after each batch how many tokens it held, for a progress bar.

    Raises:
        InputError: NaN or infinity at a site, no token left to keep, or an adapter that changes the
            stream of no kept token at a site.
    """
    require_rows(found, model.module, model.tokenizer)
    writer = ShardWriter(folder, identity, settings.dtype)
    counts = _Counts()
    everything = (*model.adapters, *model.null_adapters)
    chosen = everything if adapters is None else tuple(adapters)
    padding = padding_id(model.tokenizer)
    for batch in batches(found, model.tokenizer, padding, _size(model, settings, whole)):
        run = partial(forward, model, sites=sites, batch=batch, whole=whole)
        _collect_batch(run, chosen, batch, settings, writer, counts)
        advance(int(batch.attended.sum()))
    if not writer.rows_added:
        raise InputError("no token is left once special tokens are masked; give longer texts")
    for site, adapter in ((site, adapter) for adapter in chosen for site in sites):
        if (site, adapter) not in counts.live:
            ids, mask = batch.inputs(model.device)
            raise nothing_at(model, adapter, site, ids, mask)
    outliers, by_site = outlying(counts.base_norms, settings.outlier_multiple)
    writer.close(
        outliers,
        {
            "sites": [site.name for site in sites],
            "variants": [BASE, *chosen],
            "nulls": [name for name in chosen if name in model.null_adapters],
            "d_model": model.d_model,
            "documents": len({window.document for window in found}),
            "special": counts.special,
            "written_special": sum(window.written for window in found),
            "outliers_by_site": by_site,
            "store": settings.store,
        },
    )


def _size(model: AdaptedModel, settings: Capture, whole: Whole | None) -> int:
    """Padded tokens of a pass: a whole one makes logits of all positions up to a response's end."""
    if whole is None:
        return settings.batch_tokens
    return min(settings.batch_tokens, max(1, _LOGITS // model.vocab_size))


def _collect_batch(
    run: Callable[[str], dict[Site, Tensor]],
    adapters: Sequence[str],
    batch: TokenBatch,
    settings: Capture,
    writer: ShardWriter,
    counts: _Counts,
) -> None:
    kept = batch.attended if settings.keep_special else batch.kept
    counts.special += int((batch.attended & batch.special).sum())
    rows: dict[tuple[str, str], Tensor] = {}
    base = run(BASE)
    for site, hidden in base.items():
        chosen = hidden[places(kept, hidden.device)]
        rows[site.name, BASE] = chosen
        counts.base_norms.setdefault(site, []).append(chosen.float().norm(dim=-1).cpu())
    for adapter in adapters:
        for site, hidden in run(adapter).items():
            own = rows[site.name, BASE].to(hidden.device)
            added = delta(hidden[places(kept, hidden.device)], own)
            rows[site.name, adapter] = added
            if (site, adapter) not in counts.live and bool(added.any()):
                counts.live.add((site, adapter))
    position = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
    document = batch.documents[:, None].expand_as(batch.ids)
    tokens = TokenRows(document[kept], position[kept], batch.ids[kept], batch.response[kept])
    writer.add(tokens, rows)


def outlying(norms: dict[Site, list[Tensor]], multiple: float) -> tuple[Tensor, dict[str, int]]:
    """Indices of rows that are outliers at any site, and how many each site has."""
    joined = {site: torch.cat(parts) for site, parts in norms.items()}
    found = {s: (n > multiple * n.median()) & (multiple > 0) for s, n in joined.items()}
    any_site = torch.stack(list(found.values())).any(0)
    return any_site.nonzero().squeeze(1), {s.name: int(f.sum()) for s, f in found.items()}
