"""What an adapter does to the model's outputs: loss, KL and greedy choices, beside numeric noise.

`survey` runs base and adapter over held-out windows; what is spliced into the base later is
measured on the same windows in the same batches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lorascope.activations.batch import delta
from lorascope.activations.collect import Capture
from lorascope.activations.gates import COPY_LIMIT
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import TokenBatch, Window, batches, pad
from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel
from lorascope.models.interventions import Recorded, logits, record
from lorascope.models.load import padding_id
from lorascope.models.sites import Site, resolve_sites
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio

MOST_TOKENS = 8192
FLOOR_WINDOWS = 16
# Logits held at once: a quarter of a gigabyte in float32.
_LOGITS = 2**26
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class Scored:
    """The tokens of a batch whose prediction counts, each predicted at a kept position.

    Attributes:
        kept: tokens that are rows of a capture.
        predicting: positions, all but the last, that predict a token that counts.
        first, last: the first of these positions, and the one after their last.
        targets: the tokens they predict, in order.
        documents: the document of each.
    """

    kept: Bool[Tensor, "batch seq"]
    predicting: Bool[Tensor, "batch seq"]
    first: int
    last: int
    targets: Int[Tensor, " tokens"]
    documents: Int[Tensor, " tokens"]

    def log_probabilities(
        self, found: Float[Tensor, "batch positions vocab"]
    ) -> Float[Tensor, "tokens vocab"]:
        """Of the logits of the positions `first` to `last` − 1."""
        chosen = found[self.predicting[:, self.first : self.last].to(found.device)]
        return functional.log_softmax(chosen.float(), dim=-1)

    def losses(self, log_p: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
        """−log p of the tokens that came, nats."""
        return -log_p.gather(1, self.targets.to(log_p.device)[:, None]).squeeze(1)


def scored(batch: TokenBatch, responses: bool, keep_special: bool = False) -> Scored | None:
    """Response tokens, or all that are kept, predicted at kept positions; None without any."""
    kept = batch.attended if keep_special else batch.kept
    counted = batch.response if responses else kept
    predicting = kept[:, :-1] & counted[:, 1:]
    positions = predicting.any(0).nonzero().squeeze(1)
    if not len(positions):
        return None
    documents = batch.documents[:, None].expand_as(predicting)[predicting]
    first, last = int(positions[0]), int(positions[-1]) + 1
    return Scored(kept, predicting, first, last, batch.ids[:, 1:][predicting], documents)


def divergence(
    log_p: Float[Tensor, "tokens vocab"], log_q: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, " tokens"]:
    """KL(p ‖ q) of every token, nats.

    Σ p (eˣ − 1 − x) with x = log q − log p equals it, and no term is negative: divergences far
    below the rounding of log p survive.
    """
    x = log_q - log_p
    return (log_p.exp() * (x.clamp(max=80.0).expm1() - x)).sum(-1)


def disagreement(
    log_p: Float[Tensor, "tokens vocab"], log_q: Float[Tensor, "tokens vocab"]
) -> Bool[Tensor, " tokens"]:
    """Where the most likely next tokens differ."""
    return log_p.argmax(-1) != log_q.argmax(-1)


@dataclass(frozen=True, eq=False)
class Outcome:
    """One way of running the model, summed by document, held against the adapted model.

    Attributes:
        loss: −log p of the tokens that came, nats.
        kl: KL(adapted ‖ this), nats.
        greedy: tokens at which the two choose different most likely next tokens.
    """

    loss: Float[Tensor, " documents"]
    kl: Float[Tensor, " documents"]
    greedy: Float[Tensor, " documents"]

    @classmethod
    def empty(cls, documents: int) -> Outcome:
        """Nothing summed yet."""
        return cls(*torch.zeros(3, documents, dtype=torch.float64))

    def add(
        self, where: Scored, reference: Float[Tensor, "t v"], log_p: Float[Tensor, "t v"]
    ) -> None:
        """Add a batch's tokens; `reference` is the adapted model's log p."""
        self.loss.index_add_(0, where.documents, where.losses(log_p).double().cpu())
        self.kl.index_add_(0, where.documents, divergence(reference, log_p).double().cpu())
        self.greedy.index_add_(0, where.documents, disagreement(reference, log_p).double().cpu())


@dataclass(frozen=True)
class Floor:
    """What arithmetic alone changes between two runs of the base.

    Attributes:
        loss: |mean difference|, nats/token.
        kl: mean KL, nats/token.
        greedy: share of tokens whose most likely next token differs.
    """

    loss: float
    kl: float
    greedy: float


@dataclass(frozen=True, eq=False)
class Survey:
    """What an adapter does to the outputs, and to the stream at some sites.

    Attributes:
        settings: which tokens are left out, and the tokens of one forward pass.
        windows: those of the first documents, as many as were asked for.
        responses: response tokens are scored, all others not; False where texts have none.
        tokens: scored tokens of each document.
        base, adapted: outcomes of the two faces.
        floor: what arithmetic alone changes.
        limits: {site: base norm above which a token is an attention sink}.
        pool: {site: (deltas of kept tokens, their documents)}, documents in order.
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

    Args:
        sites: where something will be spliced.
        capture: which tokens are left out, and the tokens of one forward pass.

    Raises:
        InputError: unknown adapter or site, or no token to score.
    """
    model.info(adapter)
    settings = capture or Capture()
    resolved = resolve_sites(model.n_blocks, sites)
    chosen = first_documents(found, most)
    responses = any(any(window.response) for window in chosen)
    count = max((window.document for window in chosen), default=0) + 1
    tokens = torch.zeros(count, dtype=torch.float64)
    base, adapted = Outcome.empty(count), Outcome.empty(count)
    rows: dict[Site, list[tuple[Tensor, Tensor]]] = {site: [] for site in resolved}
    owners: list[Tensor] = []
    for batch, where in scored_batches(model, chosen, responses, settings):
        own = run(model, BASE, resolved, batch, where)
        other = run(model, adapter, resolved, batch, where)
        reference = where.log_probabilities(other.logits)
        adapted.add(where, reference, reference)
        base.add(where, reference, where.log_probabilities(own.logits))
        tokens.index_add_(0, where.documents, torch.ones(len(where.documents)).double())
        owners.append(batch.documents[:, None].expand_as(batch.ids)[where.kept])
        for site in resolved:
            kept = where.kept.to(own.streams[site].device)
            stream = own.streams[site][kept]
            added = delta(other.streams[site][kept], stream).cpu()
            rows[site].append((stream.float().norm(dim=-1).cpu(), added))
    if not tokens.sum():
        raise InputError("no token to score: give texts of at least two tokens")
    limits, pool = _streams(rows, torch.cat(owners), settings.outlier_multiple)
    floor = _floor(model, chosen, responses, settings)
    return Survey(adapter, settings, chosen, responses, tokens, base, adapted, floor, limits, pool)


def scored_batches(
    model: AdaptedModel, found: Sequence[Window], responses: bool, settings: Capture
) -> Iterator[tuple[TokenBatch, Scored]]:
    """Batches with at least one token to score, small enough for their logits."""
    size = max(1, min(settings.batch_tokens, _LOGITS // model.vocab_size))
    for batch in batches(found, model.tokenizer, padding_id(model.tokenizer), size):
        where = scored(batch, responses, settings.keep_special)
        if where is not None:
            yield batch, where


def run(
    model: AdaptedModel, face: str, sites: Sequence[Site], batch: TokenBatch, where: Scored
) -> Recorded:
    """One face over a batch, with the logits that are scored."""
    ids, mask = batch.ids.to(model.device), batch.attended.long().to(model.device)
    return record(model, face, sites, ids, mask, where.first, where.last)


def change_estimates(found: Survey, place: Key) -> list[Estimate]:
    """What the adapter changes: loss (adapted − base, negative where it helps), KL, greedy choices.

    An adapter whose outputs equal the base's is at chance in all of them.
    """
    floor, noise = found.floor, "numeric noise floor"
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


def first_documents(found: Sequence[Window], most: int) -> list[Window]:
    """All windows of the first documents that hold at most `most` tokens together; at least one
    document."""
    sizes: dict[int, int] = {}
    for window in found:
        sizes[window.document] = sizes.get(window.document, 0) + len(window.ids)
    kept: set[int] = set()
    total = 0
    for document in sorted(sizes):
        total += sizes[document]
        if kept and total > most:
            break
        kept.add(document)
    return [window for window in found if window.document in kept]


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


def _floor(
    model: AdaptedModel, found: Sequence[Window], responses: bool, settings: Capture
) -> Floor:
    """What changes between runs of the base that differ in arithmetic only.

    A few windows together against one by one, and against finer arithmetic where a copy of the
    model is small enough; the larger counts.
    """
    chosen = _spread(model, found, responses, settings)
    padding = padding_id(model.tokenizer)
    together = pad(chosen, model.tokenizer, padding)
    where = scored(together, responses, settings.keep_special)
    assert where is not None
    with model.face(BASE) as module:
        batched = _log_p(model, module, together, where)
        alone = torch.cat(
            [
                _log_p(model, module, one, mine)
                for one in (pad([window], model.tokenizer, padding) for window in chosen)
                if (mine := scored(one, responses, settings.keep_special)) is not None
            ]
        )
        others = [alone]
        if model.n_parameters <= COPY_LIMIT:
            finer = torch.float64 if model.dtype == torch.float32 else torch.float32
            exact = copy.deepcopy(module).to(finer)
            others.append(_log_p(model, exact, together, where))
    losses = where.losses(batched)
    return Floor(
        max(abs((where.losses(other) - losses).double().mean().item()) for other in others),
        max(divergence(batched, other).double().mean().item() for other in others),
        max(disagreement(batched, other).double().mean().item() for other in others),
    )


def _spread(
    model: AdaptedModel, found: Sequence[Window], responses: bool, settings: Capture
) -> list[Window]:
    """Some windows with tokens to score, from first to last, whose logits fit at once."""
    padding = padding_id(model.tokenizer)
    useful = [
        window
        for window in found
        if scored(pad([window], model.tokenizer, padding), responses, settings.keep_special)
    ]
    chosen = useful[:: max(1, len(useful) // FLOOR_WINDOWS)][:FLOOR_WINDOWS]
    longest = max(len(window.ids) for window in chosen)
    return chosen[: max(1, _LOGITS // (model.vocab_size * longest))]


def _log_p(
    model: AdaptedModel, module: nn.Module, batch: TokenBatch, where: Scored
) -> Float[Tensor, "tokens vocab"]:
    ids, mask = batch.ids.to(model.device), batch.attended.long().to(model.device)
    return where.log_probabilities(logits(module, ids, mask, where.first, where.last))
