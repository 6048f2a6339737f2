"""Hold adapters of one base against one another: similarity, chance, neighbours, clusters."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.checking.chance import rank_p
from lorascope.errors import InputError, UnknownName, require_kind
from lorascope.models.adapter_files import same_base
from lorascope.models.load import load_base
from lorascope.models.places import model_address
from lorascope.progress import Reporter
from lorascope.resembling.clusters import Clusters, clustered
from lorascope.resembling.factors import Factored, read_factors
from lorascope.resembling.products import InnerProducts, Overlaps, Stack, in_weights
from lorascope.resembling.settings import ResembleSettings
from lorascope.resembling.streamed import Probe, in_function
from lorascope.results import ADAPTER, Estimate, Estimates, Key, Null
from lorascope.results.null_names import OTHER_SEED
from lorascope.stats.intervals import jackknife_interval, prediction_interval, within

PathLike = str | os.PathLike[str]
FUNCTION, WEIGHTS = "resemble.function", "resemble.weights"
WRITTEN, READ = "resemble.written", "resemble.read"
MEASURES = (FUNCTION, WEIGHTS, WRITTEN, READ)


@dataclass(frozen=True, eq=False)
class Similarity:
    """One measure of all pairs.

    Attributes:
        measure: key into the definitions.
        values: [n, n].
        nulls: [n, draws, n], of null d of adapter i with adapter j.
        without: `values` with each document left out; empty where nothing is sampled.
    """

    measure: str
    values: Float[Tensor, "n n"]
    nulls: Float[Tensor, "n draws n"]
    without: Sequence[Float[Tensor, "n n"]] = ()

    def estimate(
        self, first: int, second: int, names: Sequence[str], upper: list[float]
    ) -> Estimate:
        """Of a pair, beside both adapters' nulls and the pairs taught alike."""
        low = -1.0 if self.measure in (FUNCTION, WEIGHTS) else 0.0
        value = float(self.values[first, second])
        drawn = torch.cat([self.nulls[first, :, second], self.nulls[second, :, first]])
        interval = (value, value)
        if self.without:
            left = [float(one[first, second]) for one in self.without]
            interval = within(jackknife_interval(value, left), low, 1.0)
        span = within(prediction_interval(drawn.tolist()), low, 1.0)
        p, level = rank_p(value, drawn.numpy()), float(drawn.mean())
        nulls = [Null(ADAPTER, level, *span, rival=True, p=p, draws=len(drawn))]
        if upper:
            mean = math.fsum(upper) / len(upper)
            ends = prediction_interval(upper) if len(upper) > 1 else (mean, mean)
            nulls.append(Null(OTHER_SEED, mean, *within(ends, low, 1.0)))
        n = len(self.without) or 1
        key = Key(adapter=names[first], compared=names[second])
        return Estimate(
            self.measure, value, interval, n, "cosine" if low else "share", tuple(nulls), key
        )


@dataclass(frozen=True, eq=False)
class Resemblance:
    """Adapters of one base held against one another.

    Attributes:
        model: the base.
        adapters: in the order in which they were given.
        similarities: {measure: of all pairs}.
        clusters: by similarity in function space.
        documents, tokens: what was streamed.
        settings: what was asked for.

    Examples:
        >>> pair = ["runs/adapters/adapters/r2", "runs/adapters/adapters/r4"]
        >>> found = ls.resemble(pair, "embedded", documents=8, tokens=16)
        >>> sorted(found.similarities)[0]
        'resemble.function'
    """

    model: str
    adapters: tuple[Factored, ...]
    similarities: dict[str, Similarity]
    clusters: Clusters
    documents: int
    tokens: int
    settings: ResembleSettings

    @property
    def names(self) -> list[str]:
        """Of the adapters."""
        return [one.name for one in self.adapters]

    @cached_property
    def alike(self) -> list[tuple[int, int]]:
        """Pairs that were taught the same, from other seeds."""
        places = {name: i for i, name in enumerate(self.names)}
        found = []
        for group in self.settings.alike:
            members = sorted(places[name] for name in group)
            found += [(a, b) for n, a in enumerate(members) for b in members[n + 1 :]]
        return sorted(set(found))

    @cached_property
    def estimates(self) -> Estimates:
        """Every measure of every pair that shares a module."""
        n = len(self.adapters)
        found = []
        for similarity in self.similarities.values():
            for i in range(n):
                for j in range(i + 1, n):
                    if math.isfinite(float(similarity.values[i, j])):
                        others = [pair for pair in self.alike if pair != (i, j)]
                        upper = [float(similarity.values[pair]) for pair in others]
                        found.append(similarity.estimate(i, j, self.names, upper))
        return Estimates(found)

    def neighbours(self, name: str, measure: str = FUNCTION) -> list[Estimate]:
        """The other adapters by how like they are, the most alike first.

        Raises:
            UnknownName: no such adapter, or no such measure.
        """
        if name not in self.names:
            raise UnknownName.of("adapter", name, self.names)
        if measure not in self.similarities:
            raise UnknownName.of("measure", measure, list(self.similarities))
        own = [e for e in self.estimates if e.measure == measure]
        return sorted(
            (e for e in own if name in (e.key.adapter, e.key.compared)), key=lambda e: -e.value
        )

    def upper(self, measure: str) -> float:
        """Mean similarity of the pairs taught alike; nan without any."""
        values = [float(self.similarities[measure].values[pair]) for pair in self.alike]
        return math.fsum(values) / len(values) if values else math.nan

    def plain(self) -> dict[str, Any]:
        """Everything as plain data; `schemas/resemble-1.json` describes it."""
        from lorascope.resembling.formats import plain

        return plain(self)

    def __repr__(self) -> str:
        return f"<Resemblance of {len(self.adapters)} adapters of {self.model}>"


def other(estimate: Estimate, name: str) -> str:
    """The adapter of a pair that is not this one."""
    return estimate.key.compared if estimate.key.adapter == name else estimate.key.adapter


def resemble_adapters(
    paths: Sequence[str], settings: ResembleSettings, reporter: Reporter | None = None
) -> Resemblance:
    """Read adapters, stream the probe text once, and hold every pair beside chance.

    Raises:
        InputError: an adapter is missing, damaged or no plain LoRA, they are of several bases, or
            the model lacks a module of theirs.
    """
    reporter = reporter or Reporter(quiet=True)
    adapters = read_factors(paths)
    _require_names(adapters, settings)
    named = settings.model or _common_base(adapters)
    model_address(named)
    n, draws = len(adapters), settings.draws
    stacks = [
        Stack(path, adapters) for path in dict.fromkeys(p for a in adapters for p in a.modules)
    ]
    model, tokenizer = load_base(named)
    probe = Probe(tokenizer, settings)
    passes = len(stacks) * len(probe.batches)
    with reporter.bar("updates", passes, "modules") as advance:
        function = in_function(model, stacks, n, probe, settings, advance)
    weights = in_weights(stacks, n, draws, settings.seed)
    found = [
        _of_products(FUNCTION, function, sampled=True),
        _of_products(WEIGHTS, weights, sampled=False),
    ]
    for measure, side in ((WRITTEN, 0), (READ, 1)):
        overlap = Overlaps(stacks, n, side, draws, settings.seed)
        found.append(Similarity(measure, overlap.values(), overlap.null_values()))
    similarities = {one.measure: one for one in found}
    clusters = clustered(similarities[FUNCTION].values)
    return Resemblance(
        named, tuple(adapters), similarities, clusters, probe.documents, probe.tokens, settings
    )


def _of_products(measure: str, found: InnerProducts, *, sampled: bool) -> Similarity:
    without = found.left_out() if sampled else ()
    return Similarity(measure, found.cosines(), found.null_cosines(), without)


def _require_names(adapters: Sequence[Factored], settings: ResembleSettings) -> None:
    names = [one.name for one in adapters]
    for group in settings.alike:
        if len(set(group)) < 2:
            raise InputError(f"--alike {','.join(group)}: name two adapters or more")
        for name in group:
            if name not in names:
                raise UnknownName.of("adapter among those compared", name, names)


def _common_base(adapters: Sequence[Factored]) -> str:
    bases = list(dict.fromkeys(one.base for one in adapters if one.base))
    if not bases:
        raise InputError("no adapter names its base model: give it as --model")
    apart = [base for base in bases[1:] if not same_base(base, [bases[0]])]
    if apart:
        raise InputError(
            f"the adapters name several base models ({bases[0]}, {apart[0]}): compare those of one "
            "base, or give the one they share as --model"
        )
    return bases[0]


def resemble(
    adapters: Sequence[PathLike],
    model: PathLike | None = None,
    *,
    quiet: bool = True,
    **settings: Any,
) -> Resemblance:
    """Which of several adapters of one base are alike, in function space and in weight space.

    Args:
        adapters: folders of PEFT adapters or ids of the hub, two or more.
        model: their base model; by default the one that their configurations name.
        quiet: whether to show no progress.
        settings: further fields of `ResembleSettings`: `texts`, `draws`, `alike=[("a0", "a1")]`.

    Raises:
        InputError: an adapter is missing, damaged or no plain LoRA, or they are of several bases.

    Examples:
        >>> pair = ["runs/adapters/adapters/r2", "runs/adapters/adapters/r4"]
        >>> found = ls.resemble(pair, "embedded", documents=8, tokens=16)
        >>> [adapter.name for adapter in found.adapters]
        ['r2', 'r4']
    """
    require_kind(adapters, (list, tuple), "the adapters", "a list of folders or ids")
    require_kind(model, (str, os.PathLike, type(None)), "the model", "a folder or an id, or None")
    for one in adapters:
        require_kind(one, (str, os.PathLike), "an adapter", "a folder or an id of the hub")
    named = None if model is None else os.fspath(model)
    parsed = ResembleSettings.parse({**settings, "model": named}, "resemble")
    return resemble_adapters([os.fspath(one) for one in adapters], parsed, Reporter(quiet))
