"""The windows in which a dictionary's latents write at a site, in both variants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import TokenBatch
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.recovery import spliced_rows
from lorascope.measures.rows import chunks
from lorascope.measures.surveys import Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site
from lorascope.outputs.scoring import Scored, alike, batches_for_logits, first_documents

MOST_TOKENS = 512
Mode = Literal["ablation", "addition"]
MODES: tuple[Mode, ...] = ("ablation", "addition")
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class Spot:
    """A batch under both variants, and what the latents write on its rows at a site.

    Attributes:
        rows: kept tokens that are attention sinks at none of the survey's sites.
        strengths: norm of what each latent writes on each row.
        variants, streams: the variant that an intervention changes, and its stream after the site.
    """

    site: Site
    batch: TokenBatch
    where: Scored
    rows: Bool[Tensor, "batch seq"]
    strengths: Float[Tensor, "rows n"]
    variants: dict[Mode, str]
    streams: dict[Mode, Float[Tensor, "batch seq d"]]

    @property
    def window_of_row(self) -> Int[Tensor, " rows"]:
        """The window of each row."""
        return self.rows.nonzero()[:, 0]

    def energies(self, latents: Int[Tensor, " k"]) -> Float[Tensor, "windows k"]:
        """Energy that latents write in each window of the batch, squared stream units."""
        written = self.strengths[:, latents.to(self.strengths.device)].cpu().double().square()
        sums = torch.zeros(len(self.rows), len(latents), dtype=torch.float64)
        return sums.index_add_(0, self.window_of_row, written)


def signed(mode: Mode, written: Tensor) -> Tensor:
    """What is added to the stream where `written` is taken away, or given."""
    return -written if mode == "ablation" else written


@torch.no_grad()
def read_spots(
    model: AdaptedModel, found: Survey, site: Site, dictionary: Dictionary, most: int
) -> Iterator[Spot]:
    """The first documents' batches, at most `most` tokens, under both variants."""
    norms = dictionary.directions.norm(dim=1)
    for batch, where, base, adapted in _batches(model, found, site, most):
        rows = spliced_rows(where, base, found.limits)
        own = base[site]
        here = rows.to(own.device)
        deltas = delta(adapted.to(own.device)[here], own[here])
        strengths = torch.cat([dictionary.encode(part) for part in chunks(deltas.to(norms))])
        variants: dict[Mode, str] = {"ablation": found.adapter, "addition": BASE}
        streams: dict[Mode, Tensor] = {"ablation": adapted, "addition": own}
        yield Spot(site, batch, where, rows, strengths * norms, variants, streams)


Streams = dict[Site, Float[Tensor, "batch seq d"]]


def _batches(
    model: AdaptedModel, found: Survey, site: Site, most: int
) -> Iterator[tuple[TokenBatch, Scored, Streams, Float[Tensor, "batch seq d"]]]:
    """Each batch, the base's streams at the survey's sites, by which sinks are told, and the
    adapted model's at one; kept ones if they are the same batches."""
    chosen = first_documents(found.windows, most)
    if found.kept is not None and site in found.pool and chosen == found.windows:
        for passed in found.kept:
            adapted = passed.adapted.streams[site]
            yield passed.batch, passed.where, passed.base.streams, adapted
        return
    sites = sorted({*found.limits, site})
    for batch, where in batches_for_logits(model, chosen, found.responses, found.settings):
        base = _streams(model, BASE, sites, batch)
        yield batch, where, base, _streams(model, found.adapter, [site], batch)[site]


def _streams(
    model: AdaptedModel, variant: str, sites: Sequence[Site], batch: TokenBatch
) -> Streams:
    """One variant's streams after some blocks; 0 at padding."""
    ids, mask = batch.inputs(model.device)
    whole: dict[Site, Tensor] = {}
    with model.variant(variant) as module:
        for chosen, width in alike(batch.attended.sum(1)):
            at = chosen.to(ids.device)
            for site, one in run_until(module, sites, ids[at, :width], mask[at, :width]).items():
                if site not in whole:
                    whole[site] = one.new_zeros(*ids.shape, one.shape[-1])
                whole[site][chosen.to(one.device), :width] = one
    return whole
