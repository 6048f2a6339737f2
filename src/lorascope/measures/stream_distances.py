"""How far a spliced model's stream is from the original's, block by block (section 6.2).

At each block after a splice, for every scored position,

    distance ‖x − x₀‖/‖x₀‖        Euclidean distance ‖x − x₀‖        cosine x·x₀/(‖x‖‖x₀‖)

with x₀ the original's stream at the same token. Streams of different tokens share a large mean,
so a cosine has to be read beside that of another token's stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch, Window
from lorascope.measures.adapting import UNCHANGED
from lorascope.measures.paired_nulls import over_tokens, paired
from lorascope.models.hooks import capture
from lorascope.models.sites import Site, block_list
from lorascope.outputs.conditions import Condition
from lorascope.outputs.scoring import scored_batches
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import OTHER_TOKENS, UNADAPTED


@dataclass(frozen=True, eq=False)
class Distances:
    """Sums by document at one site.

    Attributes:
        distance, euclidean, cosine: {condition: sums over the scored positions}; `OTHER_TOKENS` is
            the original's own stream at other positions.
        tokens: scored positions.
    """

    distance: dict[str, Float[Tensor, " documents"]]
    euclidean: dict[str, Float[Tensor, " documents"]]
    cosine: dict[str, Float[Tensor, " documents"]]
    tokens: Float[Tensor, " documents"]


@torch.no_grad()
def stream_distances(
    module: nn.Module,
    tokenizer: Any,
    windows: Sequence[Window],
    conditions: Mapping[str, Condition],
    first: Site,
    *,
    products: torch.dtype = torch.float32,
    keep_special: bool = False,
) -> dict[Site, Distances]:
    """Distances at every block after `first`, and at it, for the conditions spliced and adapted.

    Args:
        conditions: `conditions_of` a fit: original, spliced and adapted.
        first: where the first dictionary stands; there the distance is its error.
        products: type of the matrix products.
        keep_special: count special tokens too.
    """
    sites = [Site(index) for index in range(first.index, len(block_list(module)))]
    count = max((window.document for window in windows), default=-1) + 1
    names = (
        *(condition for condition in conditions if condition in ("spliced", "adapted")),
        OTHER_TOKENS,
    )
    found = {site: _empty(names, count) for site in sites}
    for batch, where in scored_batches(tokenizer, windows, keep_special=keep_special):
        chosen = torch.zeros_like(batch.attended)
        chosen[:, :-1] = where.predicting
        streams = {
            name: _streams(module, batch, chosen, condition, sites, products)
            for name, condition in conditions.items()
            if name in ("original", *names)
        }
        for site, sums in found.items():
            original = streams["original"][site]
            rows = {name: streams[name][site] for name in names if name in streams}
            rows[OTHER_TOKENS] = original.roll(len(original) // 2, 0)
            norms = original.norm(dim=1).clamp(min=1e-12)
            ones = torch.ones(len(original), dtype=torch.float64)
            sums.tokens.index_add_(0, where.documents, ones)
            for name, x in rows.items():
                apart = (x - original).norm(dim=1)
                cosine = (x * original).sum(1) / (norms * x.norm(dim=1).clamp(min=1e-12))
                for into, values in (
                    (sums.distance, apart / norms),
                    (sums.euclidean, apart),
                    (sums.cosine, cosine),
                ):
                    into[name].index_add_(0, where.documents, values.double().cpu())
    return found


def distance_estimates(found: Mapping[Site, Distances], place: Key) -> list[Estimate]:
    """Distances and cosine of the adapted model at each block, beside those of the spliced one and
    of other tokens; and the fit's change of both, paired by document.

    Args:
        place: of the fit; its site is replaced by the block's.
    """
    estimates = []
    for site, sums in found.items():
        here, mean = replace(place, site=site.name), over_tokens(sums.tokens)
        total = int(sums.tokens.sum())
        for measure, change, unit, values in (
            ("adapt.distance", "adapt.distance_change", "ratio", sums.distance),
            ("adapt.euclidean", "adapt.euclidean_change", "stream units", sums.euclidean),
            ("adapt.cosine", "adapt.cosine_change", "cosine", sums.cosine),
        ):
            adapted, spliced = values["adapted"], values["spliced"]
            nulls = (
                paired(UNADAPTED, adapted, spliced, mean, rival=True),
                paired(OTHER_TOKENS, adapted, values[OTHER_TOKENS], mean),
            )
            estimates.append(Estimate(measure, *mean(adapted), total, unit, nulls, here))
            none = (Null.exact(UNCHANGED, 0.0, rival=True),)
            moved = mean(adapted - spliced)
            estimates.append(Estimate(change, *moved, total, unit, none, here))
    return estimates


def _empty(names: Sequence[str], count: int) -> Distances:
    def zeros() -> dict[str, Tensor]:
        return {name: torch.zeros(count, dtype=torch.float64) for name in names}

    return Distances(zeros(), zeros(), zeros(), torch.zeros(count, dtype=torch.float64))


def _streams(
    module: nn.Module,
    batch: TokenBatch,
    chosen: Bool[Tensor, "batch seq"],
    condition: Condition,
    sites: Sequence[Site],
    products: torch.dtype,
) -> dict[Site, Float[Tensor, "tokens d"]]:
    device = module.get_input_embeddings().weight.device  # type: ignore[operator]
    ids, mask = batch.inputs(device)
    # Hooks run in the order they are set: within the way, so that a splice is seen.
    with (
        condition(),
        torch.autocast(device.type, products, products != torch.float32),
        capture(module, sites, attention_mask=mask) as seen,
    ):
        module(input_ids=ids, attention_mask=mask, use_cache=False)
    return {site: x[chosen.to(x.device)].float() for site, x in seen.items()}
