"""What an adapter does to the model's outputs, compared with the base on the same tokens.

`surveys` runs the base once and every adapter over held-out windows; what is spliced into the base
later is measured on the same windows in the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import TokenBatch, Window
from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel
from lorascope.models.interventions import Recorded
from lorascope.models.sites import Site, resolve_sites
from lorascope.outputs.scoring import (
    MOST_TOKENS,
    Floor,
    Outcome,
    Rows,
    Scored,
    batches_for_logits,
    first_documents,
    floor_of,
    run,
)
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NOISE_FLOOR
from lorascope.stats.documents import ratio

# Numbers in the streams and logits that are kept for later measures: a quarter of a gigabyte.
_KEPT = 2**26


@dataclass(frozen=True, eq=False)
class BothPasses:
    """A batch under both variants."""

    batch: TokenBatch
    where: Scored
    base: Recorded
    adapted: Recorded


@dataclass(frozen=True, eq=False)
class Survey:
    """What an adapter does to the outputs, and to the stream at some sites.

    Attributes:
        settings: which tokens are left out, and the tokens of one forward pass.
        windows: those of the first documents, as many as were asked for.
        responses: response tokens are scored, all others not; False where texts have none.
        tokens: scored tokens of each document.
        base, adapted: outcomes of the two variants.
        floor: what arithmetic alone changes.
        limits: {site: base norm above which a token is an attention sink}.
        pool: {site: (deltas of kept tokens, their documents)}, documents in order.
        kept: every batch under both variants, if all of them are small; None otherwise.
    """

    adapter: str
    settings: Capture
    windows: list[Window]
    responses: bool
    tokens: Float[Tensor, " documents"]
    base: Outcome
    adapted: Outcome
    floor: Floor
    limits: dict[Site, float]
    pool: dict[Site, tuple[Rows, Int[Tensor, " rows"]]]
    kept: tuple[BothPasses, ...] | None = None

    def passes(self, model: AdaptedModel) -> Iterator[BothPasses]:
        """Every batch under both variants, with the streams at the survey's sites; run again unless
        they were kept."""
        if self.kept is not None:
            yield from self.kept
            return
        for batch, where in batches_for_logits(model, self.windows, self.responses, self.settings):
            variants = (run(model, f, list(self.pool), batch, where) for f in (BASE, self.adapter))
            yield BothPasses(batch, where, *variants)

    def require_effect(self) -> None:
        """Refuse an adapter that does nothing.

        Raises:
            InputError: its outputs equal the base's within numeric noise.
        """
        apart = float(self.base.kl.sum() / self.tokens.sum())
        if apart <= self.floor.kl:
            raise InputError(
                f'adapter "{self.adapter}": its outputs equal the base\'s within numeric noise '
                f"(KL {apart:.2g}, noise {self.floor.kl:.2g} nats/token) on "
                f"{int(self.tokens.sum())} tokens: there is no effect to recover; give texts it "
                "acts on"
            )


@torch.no_grad()
def survey(
    model: AdaptedModel,
    adapter: str,
    found: Sequence[Window],
    sites: Sequence[str],
    *,
    capture: Capture | None = None,
    most: int = MOST_TOKENS,
) -> Survey:
    """Base and adapter over the windows of the first documents that hold at most `most` tokens.

    `surveys` of one adapter.
    """
    return surveys(model, [adapter], found, sites, capture=capture, most=most)[0]


@torch.no_grad()
def surveys(
    model: AdaptedModel,
    adapters: Sequence[str],
    found: Sequence[Window],
    sites: Sequence[str],
    *,
    capture: Capture | None = None,
    most: int = MOST_TOKENS,
    floor: Floor | None = None,
) -> list[Survey]:
    """Several adapters beside one run of the base, over the windows of the first documents.

    Args:
        adapters: null adapters too.
        sites: where something will be spliced.
        capture: which tokens are left out, and the tokens of one forward pass.
        most: tokens that the documents may hold together.
        floor: of `output_floor` on the same windows, where it is known.

    Raises:
        InputError: unknown adapter or site, or no token to score.
    """
    for adapter in adapters:
        model.info(adapter)
    settings = capture or Capture()
    resolved = resolve_sites(model.n_blocks, sites)
    chosen = first_documents(found, most)
    responses = any(any(window.response) for window in chosen)
    count = max((window.document for window in chosen), default=0) + 1
    tokens, owners = torch.zeros(count, dtype=torch.float64), list[Tensor]()
    gathered = {adapter: _SurveySums.empty(count, resolved) for adapter in adapters}
    kept, held = {adapter: list[BothPasses]() for adapter in adapters}, 0
    for batch, where in batches_for_logits(model, chosen, responses, settings):
        own = run(model, BASE, resolved, batch, where)
        own_log_p = where.log_probabilities(own.logits)
        tokens.index_add_(0, where.documents, torch.ones(len(where.documents)).double())
        owners.append(batch.documents[:, None].expand_as(batch.ids)[where.kept])
        held += own.size
        for adapter, into in gathered.items():
            other = run(model, adapter, resolved, batch, where)
            into.add(other, own, own_log_p, where)
            held += other.size
            kept[adapter].append(BothPasses(batch, where, own, other))
        if held > _KEPT:
            kept = {adapter: [] for adapter in adapters}
    if not tokens.sum():
        raise InputError("no token to score: give texts of at least two tokens")
    known = floor or floor_of(model, chosen, responses, settings)
    surveyed = []
    for adapter, one in gathered.items():
        limits, pool = _streams(one.rows, torch.cat(owners), settings.outlier_multiple)
        outcomes = (tokens, one.base, one.adapted, known)
        passed = tuple(kept[adapter]) if held <= _KEPT else None
        surveyed.append(
            Survey(adapter, settings, chosen, responses, *outcomes, limits, pool, passed)
        )
    return surveyed


@dataclass(frozen=True, eq=False)
class _SurveySums:
    """What one adapter's survey sums up, batch by batch."""

    base: Outcome
    adapted: Outcome
    rows: dict[Site, list[tuple[Tensor, Tensor]]]

    @classmethod
    def empty(cls, documents: int, sites: Sequence[Site]) -> _SurveySums:
        return cls(Outcome.empty(documents), Outcome.empty(documents), {s: [] for s in sites})

    def add(self, other: Recorded, own: Recorded, own_log_p: Tensor, where: Scored) -> None:
        reference = where.log_probabilities(other.logits)
        self.adapted.add(where, reference, reference)
        self.base.add(where, reference, own_log_p)
        for site, parts in self.rows.items():
            kept = where.kept.to(own.streams[site].device)
            stream = own.streams[site][kept]
            added = delta(other.streams[site][kept], stream).cpu()
            parts.append((stream.float().norm(dim=-1).cpu(), added))


def change_estimates(found: Survey, place: Key) -> list[Estimate]:
    """What the adapter changes: loss (adapted − base, negative where it helps), KL, greedy choices.

    An adapter whose outputs equal the base's lies within the noise floor in all of them.
    """
    floor, noise = found.floor, NOISE_FLOOR
    each = (
        (
            "output_change.loss",
            found.adapted.loss - found.base.loss,
            Null(noise, 0.0, -floor.loss, floor.loss),
        ),
        ("output_change.kl", found.base.kl, Null.exact(noise, floor.kl)),
        ("output_change.greedy", found.base.greedy, Null.exact(noise, floor.greedy)),
    )
    total = int(found.tokens.sum())
    return [
        Estimate(
            measure,
            *ratio(sums, found.tokens),
            total,
            "share" if measure == "output_change.greedy" else "nats/token",
            (chance,),
            place,
        )
        for measure, sums, chance in each
    ]


def _streams(
    rows: dict[Site, list[tuple[Tensor, Tensor]]], documents: Int[Tensor, " rows"], multiple: float
) -> tuple[dict[Site, float], dict[Site, tuple[Rows, Int[Tensor, " rows"]]]]:
    """Limits of the base norm, and the deltas of tokens within them, in document order."""
    norms = {site: torch.cat([n for n, _ in parts]) for site, parts in rows.items()}
    limits = {s: (multiple or torch.inf) * n.median().item() for s, n in norms.items()}
    inside = torch.stack([n <= limits[s] for s, n in norms.items()]).all(0)
    order = documents.argsort(stable=True)
    order = order[inside[order]]
    pool = {
        site: (torch.cat([d for _, d in parts])[order], documents[order])
        for site, parts in rows.items()
    }
    return limits, pool
