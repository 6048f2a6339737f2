"""How often each kind of interval holds the truth, where the truth is known.

Each kind is the function that the report's numbers call, on made-up units: documents of lognormal
sizes whose effects have Student's t with 4 degrees of freedom (language-model losses differ by
document about so), dictionaries' latents in blocks of near-copies, seeds of one condition on the
same documents. 95 % is meant; 93 to 97 % passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.measures.cka import cka_estimates
from lorascope.measures.norms import rank_estimate
from lorascope.measures.rows import HeldOut
from lorascope.randomness import generator
from lorascope.results import Key
from lorascope.stats.clusters import clusters, mean_interval, quantile_interval, share_interval
from lorascope.stats.documents import ratio, smooth
from lorascope.stats.hierarchical import mean_reach, pooled_interval
from lorascope.stats.intervals import (
    Interval,
    newcombe_interval,
    prediction_interval,
    share_ratio_interval,
    wilson_interval,
)
from lorascope.stats.moderated import moderated_prediction

DOCUMENTS = (8, 20, 57, 200)
SEEDS = (2, 3, 5)
BAR = (0.93, 0.97)
# The jackknife of CKA of unrelated rows is up to √2 too wide: its first-order part is 0 there.
_WIDE = (0.93, 1.0)
_TAILS = 4
Trial = tuple[Interval, float]
Draw = Callable[[torch.Generator], list[Trial]]


@dataclass(frozen=True)
class CoverageRow:
    """One kind of interval at one size.

    Attributes:
        kind: what is estimated.
        unit: what `n` counts: documents, prompts, latents, draws.
        n: how many of them.
        seeds: how many seeds are pooled; None where none are.
        covered, trials: how often the interval held the truth, of how many that had an end.
        bar: shares between which it passes.
    """

    kind: str
    unit: str
    n: int
    seeds: int | None
    covered: int
    trials: int
    bar: tuple[float, float] = BAR

    @property
    def share(self) -> float:
        """How often the truth was held."""
        return self.covered / self.trials

    @property
    def interval(self) -> Interval:
        """95 % interval of the share, over trials."""
        return wilson_interval(self.covered, self.trials)

    @property
    def passed(self) -> bool:
        """Whether the share may lie within the bar."""
        low, high = self.interval
        return high >= self.bar[0] and low <= self.bar[1]


def coverage_rows(repeats: int = 4000, seed: int = 0) -> list[CoverageRow]:
    """Every kind of interval at 8, 20, 57 and 200 units, and 2, 3 and 5 seeds.

    Args:
        repeats: trials a row; kinds that take longer get a half to a twentieth, 20 at least. 100
            take about ten seconds on one core, 4,000 some minutes.
    """
    return [
        _row(kind, unit, n, seeds, bar, draw, max(repeats // divisor, 20), seed)
        for kind, unit, n, seeds, bar, draw, divisor in _kinds()
    ]


_Kind = tuple[str, str, int, int | None, tuple[float, float], Draw, int]


def _kinds() -> Iterator[_Kind]:
    for n in DOCUMENTS:
        for kind, draw in (
            ("mean over tokens", _mean),
            ("mean of a positive number", _positive),
            ("difference of two models, paired", _paired),
            ("ratio of two sums", _share_of_sums),
            ("share of a change that may be of either sign (Fieller)", _recovered),
            ("correlation from sums", _correlated),
        ):
            yield kind, "documents", n, None, BAR, partial(draw, n), 1
        yield "effective rank", "documents", n, None, BAR, partial(_rank, n), 10
        yield "debiased CKA, related", "documents", n, None, BAR, partial(_cka, n, 0.8), 20
        yield "debiased CKA, unrelated", "documents", n, None, _WIDE, partial(_cka, n, 0.0), 20
        for kind, draw in (
            ("share (Wilson)", _share),
            ("difference of two shares (Newcombe)", _share_difference),
            ("ratio of two shares", _share_ratio),
        ):
            yield kind, "prompts", n, None, BAR, partial(draw, n), 1
        for seeds in SEEDS:
            draw = partial(_pooled, n, seeds)
            yield "mean over seeds", "documents", n, seeds, BAR, draw, 1
    for n in DOCUMENTS[1:]:
        latents = partial(_latents, n)
        yield "mean, share and median over latents", "latents", n, None, BAR, latents, 4
        copies = partial(_copies, n)
        yield "mean over latents in blocks of copies", "blocks", n, None, BAR, copies, 10
    for k in SEEDS:
        yield "next draw of a null", "draws", k, None, BAR, partial(_next, k), 2
        drawn = partial(_moderated, k)
        yield "next draw of a null, 4 conditions", "draws", k, None, BAR, drawn, 20


def _row(
    kind: str,
    unit: str,
    n: int,
    seeds: int | None,
    bar: tuple[float, float],
    draw: Draw,
    repeats: int,
    seed: int,
) -> CoverageRow:
    covered = trials = 0
    for repeat in range(repeats):
        for (low, high), truth in draw(generator(seed, "coverage", kind, n, seeds, repeat)):
            if not math.isnan(low):
                trials += 1
                covered += low <= truth <= high
    return CoverageRow(kind, unit, n, seeds, covered, trials, bar)


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def _sizes(n: int, random: torch.Generator) -> Float[Tensor, " n"]:
    return (60 * (0.7 * _normal(random, n)).exp()).round().clamp(min=2)


def _effects(n: int, random: torch.Generator) -> Float[Tensor, " n"]:
    """Student's t of variance 1."""
    squares = _normal(random, _TAILS, n).square().mean(0)
    return _normal(random, n) / squares.sqrt() / math.sqrt(_TAILS / (_TAILS - 2))


def _noise(sizes: Float[Tensor, " n"], random: torch.Generator) -> Float[Tensor, " n"]:
    return _normal(random, len(sizes)) / sizes.sqrt()


def _mean(n: int, random: torch.Generator) -> list[Trial]:
    sizes = _sizes(n, random)
    sums = sizes * (0.3 + _effects(n, random) + _noise(sizes, random))
    return [(ratio(sums, sizes)[1], 0.3)]


def _positive(n: int, random: torch.Generator) -> list[Trial]:
    sizes = _sizes(n, random)
    means = (0.3 * _normal(random, n)).exp()
    return [(ratio(sizes * means, sizes)[1], math.exp(0.3**2 / 2))]


def _paired(n: int, random: torch.Generator) -> list[Trial]:
    sizes = _sizes(n, random)
    first = sizes * (3 + _effects(n, random))
    second = first + sizes * (0.05 + 0.1 * _effects(n, random) + 0.3 * _noise(sizes, random))
    return [(ratio(second - first, sizes)[1], 0.05)]


def _share_of_sums(n: int, random: torch.Generator) -> list[Trial]:
    sizes = _sizes(n, random)
    energy = sizes * (0.3 * _effects(n, random)).exp().clamp(max=10)
    left = energy * (0.4 + 0.05 * _effects(n, random))
    return [(ratio(left, energy, sizes)[1], 0.4)]


def _recovered(n: int, random: torch.Generator) -> list[Trial]:
    sizes = _sizes(n, random)
    change = sizes * (1.0 + 0.5 * _effects(n, random))
    part = 0.7 * change + 0.3 * sizes * _effects(n, random)
    return [(ratio(part, change, sizes)[1], 0.7)]


def _correlated(n: int, random: torch.Generator) -> list[Trial]:
    x, other = _normal(random, 2, n, 10)
    y = 0.5 * x + math.sqrt(0.75) * other
    ones = torch.ones_like(x)
    columns = torch.stack([ones, x, y, x * x, y * y, x * y], dim=2).sum(1)
    return [(smooth(_pearson, columns, columns[:, 0])[1], 0.5)]


def _pearson(sums: Float[Tensor, "repeats 6"]) -> Float[Tensor, " repeats"]:
    n, x, y, xx, yy, xy = sums.unbind(1)
    return (n * xy - x * y) / ((n * xx - x * x) * (n * yy - y * y)).sqrt()


def _rank(n: int, random: torch.Generator) -> list[Trial]:
    scales = torch.linspace(1.5, 0.5, 8, dtype=torch.float64)
    rows = (_normal(random, n * 12, 8) * scales).float()
    documents = torch.arange(n).repeat_interleave(12)
    shares = scales.square() / scales.square().sum()
    truth = math.exp(float(-(shares * shares.log()).sum()))
    return [(rank_estimate(HeldOut(rows, rows, documents), Key()).interval, truth)]


def _cka(n: int, related: float, random: torch.Generator) -> list[Trial]:
    d, length = 6, 8
    documents = torch.arange(n).repeat_interleave(length)
    x, z = (
        (0.6 * _normal(random, n, d)[documents] + _normal(random, len(documents), d)).float()
        for _ in range(2)
    )
    y = related * x + math.sqrt(1 - related**2) * z
    found = cka_estimates(x, y, documents, "base_delta", place=Key(), repeats=2)
    # Σ_xy = related · Σ, and Σ_xx = Σ_yy = Σ.
    return [(found[1].interval, related**2)]


def _hits(n: int, share: float, random: torch.Generator) -> int:
    return int((torch.rand(n, generator=random) < share).sum())


def _share(n: int, random: torch.Generator) -> list[Trial]:
    share = 0.1 + 0.8 * float(torch.rand(1, generator=random))
    return [(wilson_interval(_hits(n, share, random), n), share)]


def _share_difference(n: int, random: torch.Generator) -> list[Trial]:
    p, q = (0.1 + 0.8 * torch.rand(2, generator=random)).tolist()
    hits = _hits(n, p, random), _hits(n, q, random)
    return [(newcombe_interval(hits, (n, n)), p - q)]


def _share_ratio(n: int, random: torch.Generator) -> list[Trial]:
    p, q = (0.3 + 0.5 * torch.rand(2, generator=random)).tolist()
    hits = _hits(n, p, random), _hits(n, q, random)
    return [(share_ratio_interval(hits, (n, n)), p / q)]


def _pooled(n: int, seeds: int, random: torch.Generator) -> list[Trial]:
    """The seeds' share of the variance is anything from none to nearly all."""
    sizes = _sizes(n, random)
    shared = _effects(n, random)
    spread = 10 ** (2 * float(torch.rand(1, generator=random)) - 1) / math.sqrt(n)
    found = [
        ratio(sizes * (0.3 + shared + spread * float(_normal(random, 1))), sizes)
        for _ in range(seeds)
    ]
    return [(pooled_interval([value for value, _ in found], mean_reach(found)), 0.3)]


def _latents(n: int, random: torch.Generator) -> list[Trial]:
    values = _normal(random, n)
    labels = torch.arange(n)
    above = 0.5 * math.erfc(0.5 / math.sqrt(2))
    return [
        (mean_interval(values, labels), 0.0),
        (share_interval(values > 0.5, labels), above),
        (quantile_interval(values, 0.5, labels), 0.0),
    ]


def _copies(n: int, random: torch.Generator) -> list[Trial]:
    """Blocks of ten near-copies whose numbers are nearly the same."""
    block = torch.arange(n).repeat_interleave(10)
    directions = _normal(random, n, 24)[block] + 0.05 * _normal(random, 10 * n, 24)
    values = _normal(random, n)[block] + 0.1 * _normal(random, 10 * n)
    return [(mean_interval(values, clusters(directions)), 0.0)]


def _next(k: int, random: torch.Generator) -> list[Trial]:
    drawn = _normal(random, k + 1).tolist()
    return [(prediction_interval(drawn[:k]), drawn[k])]


def _moderated(k: int, random: torch.Generator) -> list[Trial]:
    """Four conditions whose variances differ as χ²(4) does."""
    spread = (4 / _normal(random, 4, 4).square().sum(0)).sqrt()
    drawn = (_normal(random, k + 1, 4) * spread).T
    found = moderated_prediction(drawn[:, :k].tolist())
    return [((p.low, p.high), x) for p, x in zip(found, drawn[:, k].tolist(), strict=True)]
