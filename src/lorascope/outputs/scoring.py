"""What an adapter does to the model's outputs: loss, KL and greedy choices, beside numeric noise.

Which tokens are scored, what is summed over them, and what arithmetic alone changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lorascope.activations.noise_floor import COPY_LIMIT
from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import TokenBatch, Window, batches, pad
from lorascope.models.adapted import AdaptedModel
from lorascope.models.finer_arithmetic import in_finer_arithmetic
from lorascope.models.interventions import Recorded, logits, record
from lorascope.models.load import padding_id
from lorascope.models.sites import Site

MOST_TOKENS = 8192
BATCH_TOKENS = 4096
FLOOR_WINDOWS = 16
# Documents are cut so that at least so many share the tokens, though not below so few tokens.
DOCUMENTS, SHORTEST = 20, 16
# Logits held at once: a quarter of a gigabyte in float32.
_LOGITS = 2**26
# Numbers that a sum over the vocabulary is taken of at once: as many as a processor's cache holds
# with all that is made of them; an accelerator is kept busy by more.
_AT_ONCE = {"cpu": 2**18}
_AT_ONCE_ELSEWHERE = 2**24
# Windows up to so many times as long as the shortest share a pass, longer ones up to so few tokens.
_ALIKE, _FEW = 1.15, 512
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class Scored:
    """The tokens of a batch whose prediction counts, each predicted at a kept position.

    Attributes:
        kept: tokens that are rows of a capture.
        predicting: positions, all but the last, that predict a token that counts.
        targets: the tokens they predict, in order.
        documents: the document of each.
    """

    kept: Bool[Tensor, "batch seq"]
    predicting: Bool[Tensor, "batch seq"]
    targets: Int[Tensor, " tokens"]
    documents: Int[Tensor, " tokens"]

    @property
    def wanted(self) -> Bool[Tensor, "batch seq"]:
        """The positions whose logits are needed."""
        return functional.pad(self.predicting, (0, 1))

    def log_probabilities(
        self, logits: Float[Tensor, "tokens vocab"]
    ) -> Float[Tensor, "tokens vocab"]:
        """Of the logits of the wanted positions."""
        return functional.log_softmax(logits.float(), dim=-1)

    def losses(self, log_p: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
        """−log p of the tokens that came, nats."""
        return token_losses(log_p, self.targets)

    def windows(self, chosen: Int[Tensor, " n"], width: int) -> tuple[Int[Tensor, " t"], Scored]:
        """Those of some windows, ascending, cut to so many positions; which tokens, and they."""
        tokens = torch.isin(self.predicting.nonzero()[:, 0], chosen).nonzero().squeeze(1)
        kept, predicting = self.kept[chosen, :width], self.predicting[chosen, : width - 1]
        return tokens, Scored(kept, predicting, self.targets[tokens], self.documents[tokens])


def scored(batch: TokenBatch, responses: bool, keep_special: bool = False) -> Scored | None:
    """Response tokens, or all that are kept, predicted at kept positions; None without any."""
    kept = batch.attended if keep_special else batch.kept
    counted = batch.response if responses else kept
    predicting = kept[:, :-1] & counted[:, 1:]
    if not predicting.any():
        return None
    documents = batch.documents[:, None].expand_as(predicting)[predicting]
    return Scored(kept, predicting, batch.ids[:, 1:][predicting], documents)


def token_losses(
    log_p: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """−log p of each target, nats."""
    return -log_p.gather(1, targets.to(log_p.device)[:, None]).squeeze(1)


def divergence(
    log_p: Float[Tensor, "tokens vocab"], log_q: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, " tokens"]:
    """KL(p ‖ q) of every token, nats.

    Σ p (eˣ − 1 − x) with x = log q − log p equals it, and no term is negative: divergences far
    below the rounding of log p survive.
    """
    # One of them may stand for several of the other.
    several = max(parts_in_cache(log_p), parts_in_cache(log_q))
    pairs = zip(log_p.tensor_split(several, -2), log_q.tensor_split(several, -2), strict=True)
    return torch.cat([_divergence(p, q) for p, q in pairs], dim=-1)


def parts_in_cache(scores: Float[Tensor, "*some tokens vocab"]) -> int:
    """How many parts of a few tokens go through many steps without leaving a cache.

    Three tokens or more together: of a single one torch may add up parts in an order that hangs on
    the number of threads.
    """
    tokens = scores.shape[-2]
    most = _AT_ONCE.get(scores.device.type, _AT_ONCE_ELSEWHERE)
    size = max(3, most // max(1, scores.numel() // max(1, tokens)))
    return max(1, -(-tokens // size))


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    x = log_q - log_p
    return x.clamp(max=80.0).expm1_().sub_(x).mul_(log_p.exp()).sum(-1)


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
        measured = (
            where.losses(log_p),
            divergence(reference, log_p),
            disagreement(reference, log_p),
        )
        values = torch.stack([one.double() for one in measured]).cpu()
        for into, each in zip((self.loss, self.kl, self.greedy), values, strict=True):
            into.index_add_(0, where.documents, each)


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


def scored_batches(
    tokenizer: Any,
    found: Sequence[Window],
    most: int = BATCH_TOKENS,
    *,
    responses: bool = False,
    keep_special: bool = False,
) -> Iterator[tuple[TokenBatch, Scored]]:
    """Batches of at most so many tokens with at least one to score."""
    for batch in batches(found, tokenizer, padding_id(tokenizer), most):
        where = scored(batch, responses, keep_special)
        if where is not None:
            yield batch, where


def batches_for_logits(
    model: AdaptedModel, found: Sequence[Window], responses: bool, settings: Capture
) -> Iterator[tuple[TokenBatch, Scored]]:
    """`scored_batches` of a capture, small enough for all their logits."""
    size = max(1, min(settings.batch_tokens, _LOGITS // model.vocab_size))
    special = settings.keep_special
    return scored_batches(model.tokenizer, found, size, responses=responses, keep_special=special)


def run(
    model: AdaptedModel, variant: str, sites: Sequence[Site], batch: TokenBatch, where: Scored
) -> Recorded:
    """One variant over a batch, with the logits that are scored.

    Windows of like length go through the model together; at padding the streams are 0.
    """
    ids, mask = batch.inputs(model.device)
    parts: list[tuple[Tensor, int, Recorded]] = []
    for chosen, width in alike(batch.attended.sum(1)):
        wanted, at = where.wanted[chosen, :width], chosen.to(ids.device)
        one = record(model, variant, sites, ids[at, :width], mask[at, :width], wanted)
        if len(chosen) == len(ids):
            return one
        parts.append((chosen, width, one))
    first = parts[0][2]
    streams = {
        site: stream.new_zeros(*ids.shape, model.d_model) for site, stream in first.streams.items()
    }
    found = first.logits.new_empty(len(where.targets), first.logits.shape[-1])
    for chosen, width, one in parts:
        for site, stream in one.streams.items():
            streams[site][chosen.to(stream.device), :width] = stream
        tokens, _ = where.windows(chosen, width)
        found[tokens.to(found.device)] = one.logits
    return Recorded(model, variant, ids, mask, where.wanted, streams, found, first.blocks)


def alike(
    lengths: Int[Tensor, " windows"], most: int | None = None
) -> Iterator[tuple[Int[Tensor, " some"], int]]:
    """Windows of like length, ascending, and the longest length; together at least a few hundred
    tokens where there are, and at most `most` padded ones where one window allows it."""
    order = lengths.argsort(stable=True).tolist()
    chosen: list[int] = []
    for index in [*order, -1]:
        if chosen:
            width, after = int(lengths[chosen[-1]]), int(lengths[index])
            unlike = after > _ALIKE * int(lengths[chosen[0]]) and len(chosen) * width >= _FEW
            full = most is not None and (len(chosen) + 1) * after > most
            if index < 0 or unlike or full:
                yield torch.tensor(sorted(chosen)), width
                chosen = []
        chosen.append(index)


def first_documents(found: Sequence[Window], most: int) -> list[Window]:
    """The first documents that hold at most `most` tokens together, and twenty where there are.

    A document longer than a twentieth of `most` is cut there, or half as many tokens after its
    response begins: an interval over documents needs many, and none should outweigh the others.
    """
    longest = max(SHORTEST, most // DOCUMENTS)
    room: dict[int, int] = {}
    shortened: list[Window] = []
    for window in found:
        left = room.get(window.document, longest)
        if left < 2:
            continue
        prompt = window.response.index(True) if any(window.response) else 0
        end = max(left, prompt + left // 2) if prompt else left
        room[window.document] = left - len(window.ids[:end])
        shortened.append(Window(window.ids[:end], window.response[:end], window.document))
    sizes: dict[int, int] = {}
    for window in shortened:
        sizes[window.document] = sizes.get(window.document, 0) + len(window.ids)
    kept: set[int] = set()
    total = 0
    for document in sorted(sizes):
        total += sizes[document]
        if len(kept) >= DOCUMENTS and total > most:
            break
        kept.add(document)
    return [window for window in shortened if window.document in kept]


@torch.no_grad()
def output_floor(
    model: AdaptedModel,
    found: Sequence[Window],
    *,
    capture: Capture | None = None,
    most: int = MOST_TOKENS,
) -> Floor:
    """What arithmetic alone changes in the base's outputs on the windows that a survey takes."""
    chosen = first_documents(found, most)
    responses = any(any(window.response) for window in chosen)
    return floor_of(model, chosen, responses, capture or Capture())


def floor_of(
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
    with model.variant(BASE) as module:
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
            with in_finer_arithmetic(module, finer):
                others.append(_log_p(model, module, together, where))
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
    return chosen[: max(1, _LOGITS // (2 * model.vocab_size * longest))]


def _log_p(
    model: AdaptedModel, module: nn.Module, batch: TokenBatch, where: Scored
) -> Float[Tensor, "tokens vocab"]:
    ids, mask = batch.inputs(model.device)
    return where.log_probabilities(logits(module, ids, mask, where.wanted))
