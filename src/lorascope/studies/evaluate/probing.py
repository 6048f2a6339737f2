"""Sparse probing: is a concept in few latents?

For each binary set, on texts pooled over their tokens:

1. The k latents whose means differ most between the labels, |mean₁ − mean₀|, on training rows.
2. A logistic regression on these k; accuracy and AUC on held-out rows, half of each label.

The same k channels of the stream, the same of a random-decoder dictionary, and a regression on the
whole stream stand beside it, each on the same rows: differences are paired by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.fits.conditions import ADAPTED, SPLICED
from lorascope.models.sites import Site
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import (
    CHANNELS,
    COIN,
    NO_ADAPTER,
    OTHER_DICTIONARY,
    RANDOM_DECODER,
    WHOLE_STREAM,
)
from lorascope.stats.intervals import normal_interval, or_point, wilson_interval, within
from lorascope.studies.evaluate.labelled import Labelled, majority
from lorascope.studies.evaluate.logistic import auc_interval, fit_logistic, placements
from lorascope.studies.evaluate.pooling import STREAM, Pooled, pooled
from lorascope.studies.evaluate.settings import Probing
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.studies.evaluate.units import Units, digest_of, text_ids

ACCURACY, AUC = "evaluate.probe_accuracy", "evaluate.probe_auc"
OWN = "own"
# Names of what a probe reads, by the null it is.
_NULLS = {CHANNELS: True, RANDOM_DECODER: True, OTHER_DICTIONARY: False, WHOLE_STREAM: False}
ALL_SETS = "all sets"
# Bytes of pooled rows that are held at once.
_HELD = 1_000_000_000


@dataclass(frozen=True, eq=False)
class ScoredProbe:
    """One probe on held-out rows.

    Attributes:
        correct: 1 where the label is told.
        over, under: placements of the ones and of the zeros.
        latents: which were read, best first; empty for the whole stream.
    """

    correct: Float[Tensor, " rows"]
    over: np.ndarray
    under: np.ndarray
    latents: tuple[int, ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of rows whose label is told."""
        return float(self.correct.mean())

    @property
    def auc(self) -> float:
        """How often a row of label 1 scores above one of label 0."""
        return float(self.over.mean())


Probes = dict[tuple[str, int], ScoredProbe]


def best(rows: Float[Tensor, "rows n"], labels: Int[Tensor, " rows"], k: int) -> Int[Tensor, " k"]:
    """The k columns whose means differ most between the labels, most first."""
    gaps = (rows[labels > 0].mean(0) - rows[labels == 0].mean(0)).abs()
    return gaps.argsort(descending=True, stable=True)[:k]


def probe(
    train: tuple[Float[Tensor, "rows n"], Int[Tensor, " rows"]],
    test: tuple[Float[Tensor, "held_out n"], Int[Tensor, " held_out"]],
    k: int | None,
) -> ScoredProbe:
    """A regression on the k best columns, or on all where k is None, on held-out rows."""
    (x, y), (other, labels) = train, test
    chosen = None if k is None else best(x, y, k)
    if chosen is not None:
        x, other = x[:, chosen], other[:, chosen]
    fitted = fit_logistic(x, y)
    scores = fitted.scores(other)
    over, under, _ = placements(scores, labels)
    correct = ((scores > 0).long() == labels).double()
    return ScoredProbe(correct, over, under, () if chosen is None else tuple(chosen.tolist()))


def probes(train: Pooled, test: Pooled, labels: tuple[Tensor, Tensor], ks: Sequence[int]) -> Probes:
    """Every probe on one set: {(what it reads, k)}; k is 0 for the whole stream.

    Args:
        train, test: pooled stream, the dictionary's latents under `OWN`, and others' by null.
        labels: of the rows of both.
    """
    found: Probes = {}
    for name in train:
        if name == STREAM:
            continue
        for k in ks:
            if k <= train[name].shape[1]:
                found[name, k] = probe((train[name], labels[0]), (test[name], labels[1]), k)
    for k in ks:
        if k <= train[STREAM].shape[1]:
            found[CHANNELS, k] = probe((train[STREAM], labels[0]), (test[STREAM], labels[1]), k)
    found[WHOLE_STREAM, 0] = probe((train[STREAM], labels[0]), (test[STREAM], labels[1]), None)
    return found


def probe_sets(
    subject: OpenedSubject,
    site: Site,
    sets: Sequence[Labelled],
    others: Mapping[str, Dictionary],
    settings: Probing,
    *,
    adapter: bool,
    seed: int = 0,
) -> Iterator[tuple[Probes, float]]:
    """Every probe on each binary set at one site, with what always the same answer would reach.

    Texts that several sets share are run once, as far as their latents fit into `_HELD` bytes.

    Args:
        others: dictionaries to stand beside, by name of the null.
    """
    read = {OWN: subject.dictionary(site, adapter=adapter), **others}
    width = 4 * (sum(one.n_latents for one in read.values()) + read[OWN].d_model)
    halved = [one.halves(settings.train, settings.test, seed) for one in sets]
    for group in _groups(halved, max(1, _HELD // width)):
        texts = list(dict.fromkeys(text for pair in group for part in pair for text in part.texts))
        rows = pooled(
            subject,
            texts,
            site,
            read,
            adapter=adapter,
            context=settings.context,
            pool=settings.pool,
        )
        place = {text: row for row, text in enumerate(texts)}
        for train, test in group:
            chosen = [[place[text] for text in part.texts] for part in (train, test)]
            (x, held_out) = ({name: one[own] for name, one in rows.items()} for own in chosen)
            labels = (torch.tensor(train.labels), torch.tensor(test.labels))
            yield probes(x, held_out, labels, settings.k), majority(test.labels)


def _groups(
    sets: Sequence[tuple[Labelled, Labelled]], most: int
) -> Iterator[list[tuple[Labelled, Labelled]]]:
    """Sets one after the other, of at most `most` different texts together unless one has more."""
    group: list[tuple[Labelled, Labelled]] = []
    known: set[str] = set()
    for pair in sets:
        own = {text for part in pair for text in part.texts}
        if group and len(known | own) > most:
            yield group
            group, known = [], set()
        group.append(pair)
        known |= own
    if group:
        yield group


def set_estimates(found: Probes, coin: float, place: Key) -> list[Estimate]:
    """Accuracy and AUC of one set for each k, beside what reads as much.

    Args:
        coin: what always the same answer reaches on the held-out rows.
        place: site, subject, set.
    """
    estimates = []
    for (name, k), own in found.items():
        if name != OWN:
            continue
        at, n = replace(place, k=k), len(own.correct)
        accuracy, auc = [Null.exact(COIN, coin)], [Null.exact(COIN, 0.5)]
        for null, rival in _NULLS.items():
            other = found.get((null, 0 if null == WHOLE_STREAM else k))
            if other is None:
                continue
            gap = within(normal_interval(own.correct - other.correct), -1.0, 1.0)
            right = int(other.correct.sum())
            bounds = wilson_interval(right, n)
            accuracy.append(Null(null, other.accuracy, *bounds, rival=rival, difference=gap))
            pair = auc_interval((own.over, own.under), (other.over, other.under))
            theirs = or_point(other.auc, auc_interval((other.over, other.under)))
            auc.append(Null(null, other.auc, *theirs, rival=rival, difference=pair))
        bounds = wilson_interval(int(own.correct.sum()), n)
        estimates += [
            Estimate(ACCURACY, own.accuracy, bounds, n, "share", _ordered(accuracy), at),
            Estimate(
                AUC,
                own.auc,
                within(auc_interval((own.over, own.under)), 0.0, 1.0),
                n,
                "share",
                _ordered(auc),
                at,
            ),
        ]
    return estimates


def _ordered(nulls: Sequence[Null]) -> tuple[Null, ...]:
    return tuple(sorted(nulls, key=lambda null: not null.rival))


def mean_estimates(sets: Sequence[Probes], coins: Sequence[float], place: Key) -> list[Estimate]:
    """Means over sets, which are the units; differences are paired by set."""
    estimates = []
    every = {k for found in sets for name, k in found if name == OWN}
    for k in sorted(every):
        at = replace(place, k=k, topic=ALL_SETS)
        for measure, field, chance in (
            (ACCURACY, "accuracy", float(np.mean(coins))),
            (AUC, "auc", 0.5),
        ):
            own = torch.tensor([getattr(found[OWN, k], field) for found in sets])
            nulls = [Null.exact(COIN, chance)]
            for null, rival in _NULLS.items():
                which = (null, 0 if null == WHOLE_STREAM else k)
                if any(which not in found for found in sets):
                    continue
                other = torch.tensor([getattr(found[which], field) for found in sets])
                level, around = float(other.mean()), normal_interval(other)
                gap = normal_interval(own - other)
                nulls.append(Null(null, level, *or_point(level, around), rival, gap))
            interval = within(normal_interval(own), 0.0, 1.0)
            value = float(own.mean())
            estimates.append(
                Estimate(measure, value, interval, len(sets), "share", _ordered(nulls), at)
            )
    return estimates


def probe_units(
    sets: Sequence[Labelled], found: Sequence[Probes], place: Key, settings: Probing, seed: int
) -> list[Units]:
    """What accuracies and AUCs are made of: rows of each set, and sets."""
    units = []
    rows = [text_ids(one.halves(settings.train, settings.test, seed)[1].texts) for one in sets]
    names = [f"{one.name} {digest_of(ids)}" for one, ids in zip(sets, rows, strict=True)]
    if len(sets) > 1:
        for k in sorted({k for one in found for name, k in one if name == OWN}):
            at = replace(place, k=k, topic=ALL_SETS)
            for measure, field in ((ACCURACY, "accuracy"), (AUC, "auc")):
                values = [getattr(one[OWN, k], field) for one in found]
                units.append(Units.mean(measure, at, "sets", names, values))
    for one, ids, probes_ in zip(sets, rows, found, strict=True):
        for (name, k), probed in probes_.items():
            if name == OWN:
                at = replace(place, k=k, topic=one.name)
                units.append(Units.mean(ACCURACY, at, "texts", ids, probed.correct))
    return units


def change_estimates(
    without: Sequence[Probes], with_: Sequence[Probes], place: Key
) -> list[Estimate]:
    """With the adapter less without it, over sets."""
    estimates = []
    for k in sorted({k for found in with_ for name, k in found if name == OWN}):
        for measure, field in ((ACCURACY, "accuracy"), (AUC, "auc")):
            gaps = torch.tensor(
                [
                    getattr(one[OWN, k], field) - getattr(other[OWN, k], field)
                    for one, other in zip(with_, without, strict=True)
                ]
            )
            at = replace(place, k=k, topic=ALL_SETS, about=measure)
            nulls = (Null.exact(NO_ADAPTER, 0.0, rival=True),)
            interval = normal_interval(gaps)
            estimates.append(
                Estimate(
                    "evaluate.change", float(gaps.mean()), interval, len(gaps), "share", nulls, at
                )
            )
    return estimates


@torch.no_grad()
def probing(
    subject: OpenedSubject,
    sets: Sequence[Labelled],
    others: Mapping[bool, Mapping[Site, Mapping[str, Dictionary]]],
    settings: Probing,
    seed: int = 0,
    advance: Any = lambda done: None,
    units: list[Units] | None = None,
) -> list[Estimate]:
    """Sparse probing of every dictionary of a subject on every set.

    Args:
        others: {adapter on: {site: dictionaries to stand beside, by name of the null}}.
        advance: told after each set.
        units: collects what the numbers are made of.
    """
    estimates: list[Estimate] = []
    for site in subject.dictionaries:
        found: dict[bool, list[Probes]] = {}
        for adapter in subject.read_with:
            place = Key(
                adapter=subject.adapter if adapter else "",
                site=site.name,
                dictionary=subject.name,
                model=ADAPTED if adapter else SPLICED,
            )
            coins = []
            beside = others[adapter][site]
            taken = probe_sets(subject, site, sets, beside, settings, adapter=adapter, seed=seed)
            for one, (got, coin) in zip(sets, taken, strict=True):
                found.setdefault(adapter, []).append(got)
                coins.append(coin)
                estimates += set_estimates(got, coin, replace(place, topic=one.name))
                advance(1)
            if len(sets) > 1:
                estimates += mean_estimates(found[adapter], coins, place)
            if units is not None:
                units += probe_units(sets, found[adapter], place, settings, seed)
        if len(found) == 2:
            at = Key(
                adapter=subject.adapter, site=site.name, dictionary=subject.name, model=ADAPTED
            )
            estimates += change_estimates(found[False], found[True], at)
    assert all(not math.isnan(one.value) for one in estimates)
    return estimates
