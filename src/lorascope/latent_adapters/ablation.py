"""Does each named latent matter? Take it away, and see whether the behaviour goes.

A latent that is read is taken out of the stream at the site, z_i d_i, before the adapter reads it:
neither the adapter nor the model after it sees it. A latent that is written is left out of what the
adapter writes. Beside each stands another that the adapter does not name, taken away by as much:
for reading an unnamed latent about as active, for writing the same amount along an unnamed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.errors import InputError
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.frontier import READ, WRITTEN
from lorascope.latent_adapters.reading import Codes, Reading, Seen, SeenBatch
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval, or_point, wilson_interval
from lorascope.training.model_losses import response_tokens

_BATCH = 64
_BEYOND = 0.975


@dataclass(frozen=True, eq=False)
class Tried:
    """The behaviour under one ablation, by record.

    Attributes:
        loss: summed −log p of the response, nats.
        tokens: response tokens.
        said: whether every response token is the likeliest one, which is what greedy answers say.
    """

    loss: Float[Tensor, " records"]
    tokens: Float[Tensor, " records"]
    said: Bool[Tensor, " records"]


@dataclass(frozen=True, eq=False)
class Side:
    """Latents of one factor, each taken away alone, and all together.

    Attributes:
        latents: the named ones, heaviest first; `others` stand beside them.
        alone, other: under each ablation.
        together, others_together: all of them at once.
    """

    latents: Int[Tensor, " n"]
    others: Int[Tensor, " n"]
    alone: list[Tried]
    other: list[Tried]
    together: Tried
    others_together: Tried

    def rises(self, whole: Tried) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Rise of the behaviour's loss in nats/token, named and other."""
        found = [
            torch.stack([(one.loss - whole.loss).sum() / whole.tokens.sum() for one in each])
            for each in (self.alone, self.other)
        ]
        return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a named latent's absence does to the behaviour.

    Attributes:
        whole: nothing taken away.
        untouched: no adapter.
        sides: {"read": …, "written": …}.
    """

    whole: Tried
    untouched: Tried
    sides: dict[str, Side]


@torch.no_grad()
def ablate(
    reading: Reading, adapter: LatentAdapter, changed: Sequence[Seen], seed: int = 0
) -> Ablation:
    """Take the latents of an adapter away, one at a time and together.

    Args:
        adapter: one that names few latents; `cut` makes it.
        changed: held-out records that show the behaviour.

    Raises:
        InputError: the adapter names more than half of the latents, so that there are not as many
            others.
    """
    n = adapter.dictionary.n_latents
    named = [
        _by_weight(f, ids) for f, ids in zip(adapter.factors(), adapter.support(), strict=True)
    ]
    if any(len(ids) > n // 2 for ids in named):
        raise InputError("more than half of the latents are named: cut the adapter down first")
    batches = [
        reading.batch(changed[start : start + _BATCH]) for start in range(0, len(changed), _BATCH)
    ]
    run = _Runs(reading, adapter, batches)
    alike = _about_as_active(reading, changed, named[0])
    drawn = _drawn(n, named[1], seed)
    return Ablation(
        run.tried(lambda batch: run.stream(batch)),
        run.tried(lambda batch: batch.stream),
        {
            READ: _side(run.without_reading, named[0], alike),
            WRITTEN: _side(run.without_writing, named[1], drawn),
        },
    )


def _side(without: Callable[[Tensor, Tensor], Tried], latents: Tensor, others: Tensor) -> Side:
    """`without(named latents, those that stand in for them)`."""
    return Side(
        latents,
        others,
        [without(one[None], one[None]) for one in latents],
        [without(one[None], two[None]) for one, two in zip(latents, others, strict=True)],
        without(latents, latents),
        without(latents, others),
    )


class _Runs:
    """Runs of the records with the adapter, something taken away."""

    def __init__(self, reading: Reading, adapter: LatentAdapter, batches: list[SeenBatch]) -> None:
        self._reading, self._batches = reading, batches
        self._read, self._write = adapter.factors()
        self._scale = adapter.scale
        self._directions = adapter.dictionary.directions

    def tried(self, stream: Callable[[SeenBatch], Tensor]) -> Tried:
        parts = []
        for batch in self._batches:
            with self._reading.going_on(stream(batch)) as module:
                found = response_tokens(module, batch.tokens, self._reading.device)
            size = len(batch.tokens.ids)
            sums = torch.zeros(3, size, dtype=torch.float64)
            values = (found.losses, torch.ones_like(found.losses), ~found.likeliest)
            for row, value in zip(sums, values, strict=True):
                row.index_add_(0, found.rows.cpu(), value.double().cpu())
            parts.append(sums)
        loss, tokens, wrong = torch.cat(parts, dim=1)
        return Tried(loss, tokens, wrong == 0)

    def stream(
        self, batch: SeenBatch, codes: Codes | None = None, less: Tensor | None = None
    ) -> Float[Tensor, "batch seq d"]:
        """The stream after the adapter, which reads `codes`; `less` is taken off."""
        written = (self._scale[:, None] * self._write) @ self._directions
        change = (codes or batch.codes).read(self._read) @ written
        if less is not None:
            change = change - less
        places = batch.acted_on.nonzero(as_tuple=True)
        return batch.stream.index_put(places, change.to(batch.stream.dtype), accumulate=True)

    def without_reading(self, _named: Tensor, taken: Tensor) -> Tried:
        """The latents `taken` are taken out of the stream before the adapter reads it."""

        def stream(batch: SeenBatch) -> Tensor:
            codes = batch.codes
            gone = torch.isin(codes.latent.long(), taken.cpu())
            left = replace(codes, value=codes.value * ~gone)
            removed = replace(codes, value=codes.value * gone)
            return self.stream(batch, left, removed.read(self._directions.T))

        return self.tried(stream)

    def without_writing(self, named: Tensor, along: Tensor) -> Tried:
        """What is written along the `named` is taken off the stream along `along` instead."""
        norms = self._directions.norm(dim=1)
        size = norms[named] / norms[along].clamp(min=1e-12)
        amounts = (self._scale[:, None] * self._write[:, named] * size) @ self._directions[along]

        def stream(batch: SeenBatch) -> Tensor:
            return self.stream(batch, less=batch.codes.read(self._read) @ amounts)

        return self.tried(stream)


def ablation_estimates(found: Ablation, place: Key) -> list[Estimate]:
    """Rise of the behaviour's loss, share of latents that matter, and success left without all."""
    estimates = []
    for name, side in found.sides.items():
        if not len(side.latents):
            continue
        here = replace(place, dictionary=name)
        named, others = side.rises(found.whole)
        ones = torch.ones(len(named), dtype=torch.float64)
        level, around = ratio(others, ones)
        chance = Null("other latents", level, *or_point(level, around))
        value, interval = ratio(named, ones)
        estimates.append(
            Estimate(
                "latent.ablation",
                value,
                interval,
                len(named),
                "nats/token",
                (chance,),
                here,
            )
        )
        estimates.append(_mattering(named, others, here))
        # Without success there is nothing to be left.
        if found.whole.said.any():
            estimates.append(_left(found.whole, side, here))
    return estimates


def matters(named: Float[Tensor, " n"], others: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Latents whose absence raises the loss more than 97.5 % of the others' does."""
    return named > others.quantile(_BEYOND)


def _mattering(named: Tensor, others: Tensor, place: Key) -> Estimate:
    n, count = len(named), int(matters(named, others).sum())
    chance = Null.exact("other latents", 1 - _BEYOND)
    return Estimate(
        "latent.mattering", count / n, wilson_interval(count, n), n, "share", (chance,), place
    )


def _left(whole: Tried, side: Side, place: Key) -> Estimate:
    """Success with all named latents taken away, over success with none."""

    def left(tried: Tried) -> tuple[float, Interval]:
        ones = torch.ones(len(whole.said), dtype=torch.float64)
        return ratio(tried.said.double(), whole.said.double(), ones)

    (value, interval), (level, around) = left(side.together), left(side.others_together)
    chance = Null("as many other latents", level, *or_point(level, around))
    n = len(whole.said)
    return Estimate("latent.left", value, interval, n, "ratio", (chance,), place)


def _by_weight(factor: Float[Tensor, "r n"], ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    return ids[factor[:, ids].norm(dim=0).argsort(descending=True)]


def _about_as_active(
    reading: Reading, seen: Sequence[Seen], named: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """For each named latent the unnamed one that writes most nearly as much on these records."""
    codes = Codes.together([one.codes for one in seen])
    n = reading.dictionary.n_latents
    norms = reading.dictionary.directions.norm(dim=1).cpu()
    total = torch.zeros(n).index_add_(0, codes.latent.long(), codes.value) * norms
    free = torch.ones(n, dtype=torch.bool)
    free[named.cpu()] = False
    chosen = []
    for latent in named.tolist():
        apart = torch.where(free, (total - total[latent]).abs(), torch.inf)
        chosen.append(int(apart.argmin()))
        free[chosen[-1]] = False
    return torch.tensor(chosen, dtype=torch.long, device=named.device)


def _drawn(n: int, named: Int[Tensor, " m"], seed: int) -> Int[Tensor, " m"]:
    order = torch.randperm(n, generator=generator(seed, "other latents"))
    others = order[~torch.isin(order, named.cpu())]
    return others[: len(named)].to(named.device)
