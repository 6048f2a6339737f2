"""Ordinary text through every variant: how next-token probabilities change, and first deltas.

The base and each variant run once over the same windows. Of every window stay: sums of probability
differences by token, KL divergences, the deltas of its first positions, and the places where the
adapter's KL is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.text import Document
from lorascope.activations.tokens import TokenBatch, Window, batches, opening_ids, windows
from lorascope.errors import InputError
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.hooks import capture
from lorascope.models.interventions import logits
from lorascope.models.load import padding_id
from lorascope.models.sites import Site

# Windows are cut out of this many tokens of a document.
_READ = 512
# Probabilities held at once of a variant, a vocabulary for every token of a forward pass.
HELD = 2**25
# Tokens that gain and lose, kept of a place.
MOVED = 3
# First and last position, from 1, of the parts of a text that KL is told by.
PARTS = ((1, 4), (5, 16), (17, None))


@dataclass(frozen=True)
class ChangedPosition:
    """A position of a text at which the next token is foreseen differently.

    Attributes:
        document: number of the text.
        before: the text up to there, a context long at most.
        after: the token that follows in the text.
        kl: KL(adapted ‖ base) of the next token, nats.
        gains, losses: (token, p_base, p_adapted), what moves most first.
    """

    document: int
    before: str
    after: str
    kl: float
    gains: tuple[tuple[str, float, float], ...]
    losses: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, eq=False)
class VariantPass:
    """What one variant did to the windows.

    Attributes:
        kl: Σ KL(variant ‖ base) of each document, nats.
        moved: Σ over positions of p_variant − p_base, of each document and token.
        deltas: at each site, of the first positions of every window.
        kl_at: the same as `kl`, by part of the text (`PARTS`).
    """

    kl: Float[Tensor, " documents"]
    moved: Float[Tensor, "documents vocab"]
    deltas: dict[Site, Float[Tensor, "n d_model"]]
    kl_at: Float[Tensor, "documents parts"] | None = None


@dataclass(frozen=True, eq=False)
class PassageSurvey:
    """Ordinary text, and what every variant did to it.

    Attributes:
        tokens: positions that count, of each document.
        base: Σ over positions of p_base, by token.
        variants: by name.
        places: of the first variant, those of the largest KL.
        tokens_at: positions that count by part of the text.
        first: the document of each row of the deltas.
    """

    tokens: Float[Tensor, " documents"]
    base: Float[Tensor, " vocab"]
    variants: dict[str, VariantPass]
    places: tuple[ChangedPosition, ...]
    tokens_at: Float[Tensor, "documents parts"] | None = None
    first: Int[Tensor, " n"] | None = None


@dataclass(eq=False)
class _PassageSums:
    kl: Tensor
    kl_at: Tensor
    moved: Tensor
    deltas: dict[Site, list[Tensor]] = field(default_factory=dict)


def chosen_windows(
    documents: Sequence[Document], model: AdaptedModel, most: int, context: int
) -> list[Window]:
    """One window of each of `most` documents, spread over all; around where a response begins.

    Raises:
        InputError: no text of at least two tokens.
    """
    spread = documents[:: max(1, len(documents) // max(1, most))][:most]
    length = min(context, model.context_length)
    opening = opening_ids(model.tokenizer)
    found: list[Window] = []
    seen: set[int] = set()
    for window in windows(spread, model.tokenizer, min(_READ, model.context_length)):
        if window.document in seen:
            continue
        seen.add(window.document)
        first = next((n for n, own in enumerate(window.response) if own), 0)
        start = max(len(opening), first - length // 2)
        ids = [*opening, *window.ids[start : start + length - len(opening)]]
        if len(ids) >= len(opening) + 2:
            found.append(Window(ids, [False] * len(ids), len(found)))
    if not found:
        raise InputError("the texts hold no text of two tokens or more; give other texts")
    return found


@torch.no_grad()
def passages(
    model: AdaptedModel,
    found: Sequence[Window],
    variants: Sequence[str],
    sites: Sequence[Site],
    positions: int,
    listed: int,
    advance: Callable[[int], object] = lambda windows: None,
) -> PassageSurvey:
    """Run the base and the variants over the windows.

    Args:
        variants: the first is the one whose places are kept.
        sites: where deltas are kept, of the first `positions` tokens after what opens a text and
            the token behind it, which attention makes unlike all others.
        advance: told of every window.
    """
    n = len(found)
    parts, vocabulary = len(PARTS), model.vocab_size
    gathered = {
        variant: _PassageSums(torch.zeros(n), torch.zeros(n, parts), torch.zeros(n, vocabulary))
        for variant in variants
    }
    tokens, of_base = torch.zeros(n), torch.zeros(vocabulary)
    tokens_at = torch.zeros(n, parts)
    places: list[ChangedPosition] = []
    of_first: list[Tensor] = []
    together = max(1, HELD // model.vocab_size)
    for batch in batches(found, model.tokenizer, padding_id(model.tokenizer), together):
        counted = batch.kept.clone()
        counted[:, 0] = False
        first = counted & (counted.cumsum(1) <= positions)
        of_first.append(batch.documents[first.nonzero()[:, 0]])
        tokens[batch.documents] = counted.sum(1).float()
        inside = _parts(counted)
        tokens_at[batch.documents] = inside.sum(1).float()
        base, streams = _run(model, BASE, batch, sites, first)
        of_base += base.exp()[counted].sum(0)
        for place, variant in enumerate(variants):
            theirs, moved = _run(model, variant, batch, sites, first)
            own = gathered[variant]
            kl = _against(base, theirs, counted, batch.documents, own.moved)
            own.kl[batch.documents] = kl.sum(1)
            own.kl_at[batch.documents] = (kl[..., None] * inside).sum(1)
            for site in sites:
                own.deltas.setdefault(site, []).append(moved[site] - streams[site])
            if place == 0:
                places += _places(model, batch, kl, base, theirs, listed)
        advance(len(batch.documents))
    every = {
        variant: VariantPass(
            own.kl, own.moved, {s: torch.cat(d) for s, d in own.deltas.items()}, own.kl_at
        )
        for variant, own in gathered.items()
    }
    largest = sorted(places, key=lambda place: -place.kl)[:listed]
    return PassageSurvey(tokens, of_base, every, tuple(largest), tokens_at, torch.cat(of_first))


def _against(
    base: Float[Tensor, "batch seq vocab"],
    theirs: Float[Tensor, "batch seq vocab"],
    counted: Bool[Tensor, "batch seq"],
    documents: Int[Tensor, " batch"],
    moved: Float[Tensor, "documents vocab"],
) -> Float[Tensor, "batch seq"]:
    """KL of every position that counts, 0 elsewhere; summed differences go into `moved`.

    One window at a time: copies of a whole batch's probabilities would not stay in the cache.
    """
    kl = torch.zeros(counted.shape)
    for n, (document, here) in enumerate(zip(documents.tolist(), counted, strict=True)):
        p = theirs[n].exp()
        kl[n] = ((theirs[n] - base[n]).mul_(p)).sum(-1).masked_fill(~here, 0.0)
        moved[document] = p.sub_(base[n].exp()).mul_(here[:, None]).sum(0)
    return kl


def _parts(counted: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq parts"]:
    """Which positions that count are in which part of their text."""
    number = counted.cumsum(1)
    inside = [
        counted & (number >= first) & (number <= (last or counted.shape[1]))
        for first, last in PARTS
    ]
    return torch.stack(inside, -1)


def _run(
    model: AdaptedModel,
    variant: str,
    batch: TokenBatch,
    sites: Sequence[Site],
    first: Bool[Tensor, "batch seq"],
) -> tuple[Float[Tensor, "batch seq vocab"], dict[Site, Float[Tensor, "n d"]]]:
    """Log-probabilities, and the stream at the first positions."""
    ids, mask = batch.inputs(model.device)
    with (
        model.variant(variant) as module,
        capture(module, sites, attention_mask=mask, stop=False) as captured,
    ):
        found = logits(module, ids, mask).float().cpu()
    for window in found:
        window.copy_(window.log_softmax(-1))
    return found, {site: captured[site].float().cpu()[first] for site in sites}


def _places(
    model: AdaptedModel, batch: TokenBatch, kl: Tensor, base: Tensor, adapted: Tensor, listed: int
) -> list[ChangedPosition]:
    """The positions of a batch with the largest KL, at most `listed`."""
    decode = model.tokenizer.decode
    flat = kl.flatten().topk(min(listed, kl.numel()))
    found = []
    for value, index in zip(flat.values.tolist(), flat.indices.tolist(), strict=True):
        row, at = divmod(index, kl.shape[1])
        if value <= 0:
            continue
        before, after = base[row, at].exp(), adapted[row, at].exp()
        follows = at + 1 < int(batch.attended[row].sum())
        found.append(
            ChangedPosition(
                int(batch.documents[row]),
                decode(batch.ids[row, : at + 1].tolist(), skip_special_tokens=True),
                decode([int(batch.ids[row, at + 1])]) if follows else "",
                value,
                _moved(decode, before, after, largest=True),
                _moved(decode, before, after, largest=False),
            )
        )
    return found


def _moved(
    decode: Callable[..., str], before: Tensor, after: Tensor, *, largest: bool
) -> tuple[tuple[str, float, float], ...]:
    ids = (after - before).topk(MOVED, largest=largest).indices.tolist()
    return tuple((decode([i]), float(before[i]), float(after[i])) for i in ids)
