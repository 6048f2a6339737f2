"""Does each named latent matter? Take it away, and see what becomes of the behaviour's loss.

A latent that is read is taken out of the stream at the site, z_i d_i, before the adapter reads it:
neither the adapter nor the model after it sees it. A latent that is written is left out of what the
adapter writes. Beside each stand others that the adapter does not name, put through the same: for
reading latents that fire as often and write as much, for writing as much along such latents.

    p_i = (1 + number of a latent's alternatives whose rise is no smaller) / (alternatives + 1)

which is at most α for a share ⌊α (k + 1)⌋/(k + 1) of latents that are like their k alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from lorascope.errors import InputError
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.frontier import READ, WRITTEN
from lorascope.latent_adapters.matching import matched
from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite, Seen, SeenBatch
from lorascope.latent_adapters.removal import amounts_along
from lorascope.latent_adapters.settings import ALTERNATIVES
from lorascope.models.sending import places
from lorascope.outputs.responses import response_tokens
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import MATCHED_LATENTS
from lorascope.stats.intervals import MIN_DOCUMENTS, UNKNOWN, normal_interval, wilson_interval

# A latent matters where its rank p-value is at most this; of several, at this false discovery rate.
ALPHA, FDR = 0.05, 0.1
_BATCH = 64
_SIMULATED = 2000
_ENDS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class AblatedSide:
    """Latents of one factor, each taken away alone, and its alternatives likewise.

    Attributes:
        latents: the named ones, heaviest first.
        alternatives: unnamed ones that stand beside each.
        runs: which runs the alternatives' rises come from; equal numbers are the same run.
        named, others: rise of the behaviour's loss, nats per response token.
    """

    latents: Int[Tensor, " n"]
    alternatives: Int[Tensor, "n k"]
    runs: Int[Tensor, "n k"]
    named: Float[Tensor, " n"]
    others: Float[Tensor, "n k"]

    @property
    def p(self) -> Float[Tensor, " n"]:
        """Rank p-value of each latent among its alternatives; ties count against it."""
        return rank_p(self.named, self.others)

    @property
    def matters(self) -> Bool[Tensor, " n"]:
        """Latents found at the false discovery rate `FDR` (Benjamini & Hochberg 1995)."""
        adjusted = stats.false_discovery_control(self.p.numpy(), method="bh")
        return torch.from_numpy(adjusted <= FDR)


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a named latent's absence does to the behaviour.

    Attributes:
        whole, untouched: loss of the wanted responses with nothing taken away, and without the
            adapter, nats per response token.
        sides: {"read": …, "written": …}; without one of which nothing is named.
    """

    whole: float
    untouched: float
    sides: dict[str, AblatedSide]


@torch.no_grad()
def ablate(
    reading: FrozenSite,
    adapter: LatentAdapter,
    changed: Sequence[Seen],
    *,
    latents: int | None = None,
    alternatives: int = ALTERNATIVES,
    advance: Callable[[int], object] | None = None,
) -> Ablation:
    """Take the latents of an adapter away, one at a time.

    Args:
        adapter: one that names few latents; `cut` makes it.
        changed: held-out records that show the behaviour.
        latents: most of a side, the heaviest; all by default.
        alternatives: of each latent, where the dictionary has so many.
        advance: told of every latent done.

    Raises:
        InputError: the adapter names more than half of the latents, so that there are not as many
            others.
    """
    named = named_latents(adapter)
    if max(map(len, named.values())) > adapter.dictionary.n_latents // 2:
        raise InputError("more than half of the latents are named: cut the adapter down first")
    batches = [
        reading.batch(changed[start : start + _BATCH]) for start in range(0, len(changed), _BATCH)
    ]
    run = _Runs(reading, adapter, batches)
    whole = run.loss(lambda batch: run.stream(batch))
    sides = {}
    for side, take in ((READ, _reading_side), (WRITTEN, _writing_side)):
        if len(named[side]):
            others = matched(reading, changed, named[side], alternatives)
            kept = slice(latents)
            sides[side] = take(
                run, named[side][kept], others[kept], whole, advance or (lambda count: None)
            )
    return Ablation(whole, run.loss(lambda batch: batch.stream), sides)


def _reading_side(
    run: _Runs, latents: Tensor, others: Tensor, whole: float, done: Callable[[int], object]
) -> AblatedSide:
    """An alternative is taken away alike whichever latent it stands beside: one run for all."""
    named = []
    for one in latents:
        named.append(run.without_reading(one[None]) - whole)
        done(1)
    each, runs = others.unique(return_inverse=True)
    rises = torch.tensor([run.without_reading(one[None]) - whole for one in each]).double()
    runs = runs.cpu()
    return AblatedSide(latents.cpu(), others.cpu(), runs, torch.tensor(named).double(), rises[runs])


def _writing_side(
    run: _Runs, latents: Tensor, others: Tensor, whole: float, done: Callable[[int], object]
) -> AblatedSide:
    """How much is taken off along an alternative is what the latent itself has written."""
    named, beside = [], []
    for one, row in zip(latents, others, strict=True):
        named.append(run.without_writing(one[None], one[None]) - whole)
        beside.append([run.without_writing(one[None], other[None]) - whole for other in row])
        done(1)
    runs = torch.arange(others.numel()).reshape(others.shape)
    rises = (torch.tensor(named).double(), torch.tensor(beside).double())
    return AblatedSide(latents.cpu(), others.cpu(), runs, *rises)


class _Runs:
    """Runs of the records with the adapter, something taken away."""

    def __init__(
        self, reading: FrozenSite, adapter: LatentAdapter, batches: list[SeenBatch]
    ) -> None:
        self._reading, self._batches, self._adapter = reading, batches, adapter
        self._read, self._write = adapter.factors()
        self._directions = adapter.dictionary.directions

    def loss(self, stream: Callable[[SeenBatch], Tensor]) -> float:
        """−log p of the wanted responses, nats per response token."""
        total, tokens = 0.0, 0
        for batch in self._batches:
            with self._reading.going_on(stream(batch)) as module:
                found = response_tokens(module, batch.tokens, self._reading.device)
            total += float(found.losses.double().sum())
            tokens += len(found.losses)
        return total / tokens

    def stream(
        self, batch: SeenBatch, codes: ActiveLatents | None = None, less: Tensor | None = None
    ) -> Float[Tensor, "batch seq d"]:
        """The stream after the adapter, which reads `codes`; `less` is taken off."""
        change = (codes or batch.codes).read(self._read) @ self._adapter.writing(self._write)
        if less is not None:
            change = change - less
        at = places(batch.acted_on, change.device)
        return batch.stream.index_put(at, change.to(batch.stream.dtype), accumulate=True)

    def without_reading(self, taken: Tensor) -> float:
        """The latents `taken` are taken out of the stream before the adapter reads it."""

        def stream(batch: SeenBatch) -> Tensor:
            codes = batch.codes
            gone = torch.isin(codes.latent.long(), taken.cpu())
            left = replace(codes, value=codes.value * ~gone)
            removed = replace(codes, value=codes.value * gone)
            return self.stream(batch, left, removed.read(self._directions.T))

        return self.loss(stream)

    def without_writing(self, named: Tensor, along: Tensor) -> float:
        """What is written along the `named` is taken off the stream along `along` instead."""
        amounts = amounts_along(self._adapter, named, along)

        def stream(batch: SeenBatch) -> Tensor:
            return self.stream(batch, less=batch.codes.read(self._read) @ amounts)

        return self.loss(stream)


def ablation_estimates(found: Ablation, place: Key, seed: int = 0) -> list[Estimate]:
    """Rise of the behaviour's loss, and the share of latents that matter, of each side."""
    estimates = []
    for name, side in found.sides.items():
        here = replace(place, dictionary=name)
        estimates.append(_rise(side, here))
        if least_p(side.others.shape[1]) <= ALPHA:
            estimates.append(mattering(side.named, side.others, side.runs, here, seed))
    return estimates


def _rise(side: AblatedSide, place: Key) -> Estimate:
    n, beside = len(side.named), side.others.mean(1)
    level = float(beside.mean())
    enough = n >= MIN_DOCUMENTS
    low, high = normal_interval(beside) if enough else (level, level)
    apart = normal_interval(side.named - beside) if enough else UNKNOWN
    interval = normal_interval(side.named) if enough else UNKNOWN
    value = float(side.named.mean())
    null = Null(MATCHED_LATENTS, level, low, high, True, apart)
    return Estimate("latent.ablation", value, interval, n, "nats/token", (null,), place)


def rank_p(named: Float[Tensor, " n"], others: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """(1 + alternatives no smaller) / (alternatives + 1)."""
    return (1 + (others >= named[:, None]).sum(1)).double() / (others.shape[1] + 1)


def least_p(alternatives: int) -> float:
    """The smallest p-value that so many alternatives can give."""
    return 1 / (alternatives + 1)


def mattering(
    named: Float[Tensor, " n"],
    others: Float[Tensor, "n k"],
    runs: Int[Tensor, "n k"],
    place: Key,
    seed: int = 0,
) -> Estimate:
    """Share of latents whose rank p-value is at most `ALPHA`, beside its law under exchangeability.

    The level is exact. Alternatives that several latents share make their p-values depend on each
    other; the law of the share is simulated with the same ones shared, all values alike.
    """
    n, k = others.shape
    # A latent matters where fewer of its alternatives than this are no smaller.
    allowed = math.floor(ALPHA * (k + 1) + 1e-9)
    share = float(((others >= named[:, None]).sum(1) < allowed).double().mean())
    level = allowed / (k + 1)
    random = generator(seed, "exchangeable", place)
    distinct, values = int(runs.max()) + 1, []
    step = max(1, 4_000_000 // (n * k + distinct))
    for start in range(0, _SIMULATED, step):
        repeats = min(step, _SIMULATED - start)
        drawn = torch.rand(repeats, n, generator=random)
        beside = torch.rand(repeats, distinct, generator=random)[:, runs]
        beyond = (beside >= drawn[..., None]).sum(2)
        values.append((beyond < allowed).double().mean(1))
    law = torch.cat(values)
    low, high = (float(torch.quantile(law, end, interpolation="nearest")) for end in _ENDS)
    tails = [(1 + int(side.sum())) / (1 + len(law)) for side in (law >= share, law <= share)]
    apart = (share - high, share - low)
    null = Null(MATCHED_LATENTS, level, low, high, True, apart, min(1.0, 2 * min(tails)), k)
    interval = wilson_interval(round(share * n), n) if n >= MIN_DOCUMENTS else UNKNOWN
    return Estimate("latent.mattering", share, interval, n, "share", (null,), place)


def named_latents(adapter: LatentAdapter) -> dict[str, Int[Tensor, " n"]]:
    """{read or written: the latents of that side, heaviest first}."""
    sides = zip((READ, WRITTEN), adapter.factors(), adapter.support(), strict=True)
    return {side: _by_weight(factor, ids) for side, factor, ids in sides}


def _by_weight(factor: Float[Tensor, "r n"], ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    return ids[factor[:, ids].norm(dim=0).argsort(descending=True)]
