"""Which latents of the base's dictionary drift under each adapter: a stage an adapter and site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.shards import BASE
from lorascope.activations.tokens import token_text
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.drift import Drift, drift, firing, null_drifts
from lorascope.measures.rows import CHUNK, shared_out
from lorascope.measures.spots import Rows
from lorascope.randomness import generator
from lorascope.runs import read_json, write_atomically
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.measuring import PARENTS
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.run_dictionaries import DICTIONARIES, brought_at

DRIFT, FILE = "drift", "drift.json"
# False discovery rate, latents kept of an adapter and site, tokens named of each.
LEVEL, LISTED, TOKENS = 0.05, 40, 5


@stage(version=1, title="base latents that drift")
def take(work: Work, *, study: AuditStudy, first_seed: int, site: str, adapter: str) -> None:
    """Firing of the base dictionary's latents with and without an adapter and its null adapters."""
    state: Audited = work.state
    audit = state.audit(study, first_seed)
    dictionary, shards = audit.learned.base(site, first_seed), audit.held_out
    origin = shards.tokens()
    order = torch.argsort(origin.document, stable=True)
    most = audit.study.measures.rows
    order = order[shared_out(origin.document[order], most, generator(0, "stretch"))]
    base = shards.load(site, BASE)[order]
    own, *nulls = (
        firing(dictionary, base, shards.load(site, name)[order])
        for name in (adapter, *audit.variants.nulls_of(adapter))
    )
    found = drift(own, nulls)
    leading = found.leading(LISTED, LEVEL)
    moved = _moved(dictionary, base, shards.load(site, adapter)[order], leading)
    spelled = [token_text(state.shape.tokenizer, token) for token in origin.token[order].tolist()]
    record = {
        "site": site,
        "adapter": adapter,
        "tokens": own.tokens,
        "latents": len(found.change),
        "looked_at": int(np.isfinite(found.change).sum()),
        "drifting": int((found.q <= LEVEL).sum()),
        "nulls": null_drifts(nulls, LEVEL),
        "n_nulls": len(nulls),
        "share": float(found.share[found.q <= LEVEL].sum()),
        "rows": [_row(found, latent, moved[:, n], spelled) for n, latent in enumerate(leading)],
    }
    write_atomically(work.folder / FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def stages(state: Audited) -> Iterator[Stage]:
    """One stage an adapter and site, `drift/<site>-<adapter>`, with the base's first dictionary."""
    study, seed = state.study.only("measures.rows", "seed"), state.study.dictionaries.seeds[0]
    for site in (one.name for one in state.sites):
        used = [
            f"{DICTIONARIES}/{key.name}"
            for key in state.wanted
            if (key.target, key.site, key.seed, key.setting) == ("base", site, seed, "")
        ]
        used += [brought_at(site)] if site in state.brought else []
        for adapter in state.adapters:
            arguments = {"study": study, "first_seed": seed, "site": site, "adapter": adapter}
            yield Stage(f"{DRIFT}/{site}-{adapter}", take, arguments, (*PARENTS, *used))


def facts_of(state: Audited) -> list[dict[str, Any]]:
    """Every stage's record, adapter by adapter and site by site."""
    return [
        dict(read_json(state.folder / DRIFT / f"{site.name}-{adapter}" / FILE))
        for adapter in state.adapters
        for site in state.sites
    ]


def _row(
    found: Drift, latent: int, moved: Float[Tensor, " rows"], spelled: list[str]
) -> dict[str, Any]:
    """What is kept of a latent, and the tokens on which it gains and loses most."""
    own = found.firing
    sides = [
        dict.fromkeys(spelled[n] for n in side.topk(TOKENS).indices.tolist() if side[n] > 0)
        for side in (moved, -moved)
    ]
    counted = ("before", "after", "switched", "energy_before", "energy_after")
    return {
        "latent": latent,
        **{name: float(getattr(own, name)[latent]) / own.tokens for name in counted},
        "change": float(found.change[latent]),
        "null_change": float(found.null_change[latent]),
        "share": float(found.share[latent]),
        "q": float(found.q[latent]),
        "gains": list(sides[0]),
        "loses": list(sides[1]),
    }


@torch.no_grad()
def _moved(
    dictionary: Dictionary, base: Rows, delta: Rows, latents: list[int]
) -> Float[Tensor, "rows k"]:
    """What the strengths of some latents change by, row by row."""
    parts = []
    for ours, own in zip(base.split(CHUNK), delta.split(CHUNK), strict=True):
        stream = ours.to(dictionary.directions)
        change = dictionary.encode(stream + own.to(stream)) - dictionary.encode(stream)
        parts.append(change[:, latents].float().cpu())
    return torch.cat(parts)
