"""The size of null adapters: each is multiplied until it moves the stream as far as its adapter.

A random update of the same singular values meets the activations by chance and moves the stream
less than a trained one. So what depends on how large the delta is needs null adapters of an equal
delta; `docs/null_adapters.md` says which rival explanation either matching stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.activations.collect import forward, outlying
from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import TokenBatch, Window, batches
from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import AdaptedModel
from lorascope.models.load import padding_id
from lorascope.models.null_adapters import rescale_null_adapter
from lorascope.models.sites import Site

# How far the geometric mean of the ratios may be from 1.
TOLERANCE = 0.02
# Factors are looked for from 1/64 to 64, in at most this many measurements of a null adapter.
LARGEST = 64.0
PASSES = 10
# Documents and tokens that a study matches on.
DOCUMENTS, TOKENS = 16, 2048

Norms = dict[str, float]


@dataclass(frozen=True)
class Match:
    """How a null adapter was brought to its adapter's size.

    Attributes:
        factor: of what the null adapter draws (`AdapterInfo.factor`).
        ratios: {site: mean delta norm of the null adapter / of the adapter} with that factor.
    """

    factor: float
    ratios: dict[str, float]

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios over sites; 1 where the match is exact."""
        return math.exp(sum(map(math.log, self.ratios.values())) / len(self.ratios))

    @property
    def reached(self) -> bool:
        """Whether that mean is within `TOLERANCE` of 1."""
        return abs(math.log(self.ratio)) <= math.log1p(TOLERANCE)


@torch.no_grad()
def match_delta_norms(
    model: AdaptedModel,
    adapters: Sequence[str],
    found: Sequence[Window],
    sites: Sequence[Site],
    settings: Capture,
    advance: Callable[[int], None] = lambda nulls: None,
) -> dict[str, Match]:
    """Rescale every null adapter to its adapter's mean delta norm, and say how near it came.

    The factor is the one at which mean ‖h_Δ(null)‖ / mean ‖h_Δ(adapter)‖ has a geometric mean of 1
    over `sites`, to `TOLERANCE`; means are over the tokens that capture keeps. It is found by
    secant steps in the logarithms of factor and ratio, between 1/`LARGEST` and `LARGEST`, in at
    most `PASSES` runs of the windows; the base runs once for all adapters. Where no factor reaches
    it (DoRA's magnitudes and what saturates do not scale) the nearest one found is kept. Factors
    have four digits.

    Args:
        found: windows to measure on; a few thousand tokens do.
        settings: which tokens count, and how many go through the model at once.
        advance: told of every null adapter that is done.

    Returns:
        {null adapter: its match}, by adapter and draw; none of adapters that have no null adapter.

    Raises:
        InputError: an adapter changes nothing at a site; NaN or infinity there; no token left.
    """
    chosen = [adapter for adapter in adapters if model.nulls_of(adapter)]
    if not chosen:
        return {}
    texts, matches = _KnownWindows(model, found, sites, settings), {}
    for adapter in chosen:
        wanted = _wanted(texts, adapter)
        for null in model.nulls_of(adapter):
            matches[null] = _match(model, null, texts, wanted)
            advance(1)
    return matches


def _wanted(texts: _KnownWindows, adapter: str) -> Norms:
    wanted = texts.norms(adapter)
    for site, norm in wanted.items():
        if not norm:
            raise InputError(
                f'adapter "{adapter}" changes nothing at {site}: its first adapted block lies '
                "deeper; choose deeper sites"
            )
    return wanted


class _KnownWindows:
    """Windows whose base stream is known."""

    def __init__(
        self,
        model: AdaptedModel,
        found: Sequence[Window],
        sites: Sequence[Site],
        settings: Capture,
    ) -> None:
        self._model, self._sites = model, list(sites)
        padding = padding_id(model.tokenizer)
        self._batches = list(batches(found, model.tokenizer, padding, settings.batch_tokens))
        self._kept = [b.attended if settings.keep_special else b.kept for b in self._batches]
        self._base = [self._rows(BASE, *one) for one in self._each()]
        if not sum(int(kept.sum()) for kept in self._kept):
            raise InputError("no token is left once special tokens are masked; give longer texts")
        norms = {s: [rows[s].float().norm(dim=-1).cpu() for rows in self._base] for s in sites}
        outliers, _ = outlying(norms, settings.outlier_multiple)
        count = sum(map(len, norms[self._sites[0]]))
        counted = torch.ones(count, dtype=torch.bool)
        counted[outliers] = False
        self._counted = counted.split([len(rows) for rows in norms[self._sites[0]]])

    def norms(self, variant: str) -> Norms:
        """{site name: mean ‖h_Δ‖ of a variant over the tokens that count}."""
        sums = {site.name: 0.0 for site in self._sites}
        each = zip(self._each(), self._base, self._counted, strict=True)
        for one, base, counted in each:
            for site, rows in self._rows(variant, *one).items():
                norms = delta(rows, base[site].to(rows.device)).norm(dim=-1).cpu()
                sums[site.name] += float(norms[counted].double().sum())
        total = sum(int(counted.sum()) for counted in self._counted)
        return {site: value / total for site, value in sums.items()}

    def _each(self) -> list[tuple[TokenBatch, Tensor]]:
        return list(zip(self._batches, self._kept, strict=True))

    def _rows(self, variant: str, batch: TokenBatch, kept: Tensor) -> dict[Site, Tensor]:
        stream = forward(self._model, variant, self._sites, batch)
        return {site: hidden[kept.to(hidden.device)] for site, hidden in stream.items()}


def _match(model: AdaptedModel, null: str, texts: _KnownWindows, wanted: Norms) -> Match:
    tried: list[Match] = []
    search = _Search()
    for _ in range(PASSES):
        factor = float(f"{math.exp(search.next):.4g}")
        if any(match.factor == factor for match in tried):
            break
        x = math.log(factor)
        try:
            rescale_null_adapter(model, null, factor)
        except NoNullAdapter:
            search.too_small(x)
            continue
        try:
            norms = texts.norms(null)
        except InputError:
            # the stream overflows
            if not tried:
                raise
            search.too_large(x)
            continue
        # a delta of nothing is as far from its goal as numbers go
        match = Match(factor, {site: max(norms[site], 1e-30) / wanted[site] for site in wanted})
        tried.append(match)
        if match.reached:
            break
        search.add(x, math.log(match.ratio))
    best = min(tried, key=lambda match: abs(math.log(match.ratio)))
    rescale_null_adapter(model, null, best.factor)
    return best


class _Search:
    """Where to look next for the root of a rising function: secant steps kept within a bracket.

    The logarithm of the ratio against that of the factor is nearly a line of slope 1.

    Attributes:
        next: where to look.
    """

    def __init__(self) -> None:
        self.next = 0.0
        self._low, self._high = -math.log(LARGEST), math.log(LARGEST)
        self._known: dict[float, float] = {}

    def add(self, x: float, y: float) -> None:
        """The function is `y` at `x`."""
        slope = 1.0
        if self._known:
            last = next(reversed(self._known))
            slope = (y - self._known[last]) / (x - last)
        self._known[x] = y
        if y < 0:
            self._low = x
        else:
            self._high = x
        # a slope that is nearly flat, falling or steep would throw the next step out
        step = x - y / min(max(slope, 0.25), 4.0)
        self.next = min(max(step, self._low), self._high)
        if self.next in self._known:
            self._halve()

    def too_small(self, x: float) -> None:
        """The function has no value at `x` and below."""
        self._low = x
        self._halve()

    def too_large(self, x: float) -> None:
        """The function has no value at `x` and above."""
        self._high = x
        self._halve()

    def _halve(self) -> None:
        self.next = (self._low + self._high) / 2
