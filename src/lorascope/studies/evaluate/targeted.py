"""TPP and SCR, with the published settings (SAEBench 0.6.0, Karvonen et al. 2024).

A probe reads the stream pooled over a text. Zeroing a set of latents A and keeping what the
dictionary misses takes Σ_{i∈A} z_i w_i from the stream at every token; pooled, that is the texts'
pooled latents times their directions, so nothing is run again.

    effect of latent i on a probe with weight v        (mean z_i on the class − on others) · (w_i·v)

*TPP*: zero the n latents of largest effect on a class's probe (differences below 0 count as 0);
accuracy its own probe loses, less the mean that the other classes' probes lose.

*SCR*: a probe is trained where label and another attribute always go together. Of the two, it is
worse at one, t; the n latents of largest |effect| on a probe of the other are zeroed:
(accuracy at t after − before) / (accuracy of a probe of t − before).

Published: AdamW, 20 epochs of batches of 16 at a rate of 1e-3, an L1 penalty of 1e-3. The published
code keeps the epoch that is best on the rows it then measures on; here the last one is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.fits.conditions import ADAPTED, SPLICED
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NOTHING_CHANGED, RANDOM_DECODER
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import normal_interval, or_point
from lorascope.studies.evaluate.pooling import STREAM, Pooled, pooled
from lorascope.studies.evaluate.probing import OWN
from lorascope.studies.evaluate.settings import Targeted
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.studies.evaluate.targeted_texts import scr_texts, tpp_texts
from lorascope.studies.evaluate.units import Units, digest_of, text_ids

# Accuracy that a clean probe has to be ahead of a biased one, as published.
_LEAST_GAP = 0.001


@dataclass(frozen=True, eq=False)
class TrainedProbe:
    """score = x · weight + bias; above 0 means label 1."""

    weight: Float[Tensor, " d"]
    bias: float

    def right(
        self, rows: Float[Tensor, "rows d"], labels: Int[Tensor, " rows"]
    ) -> Float[Tensor, " rows"]:
        """1 where the label is told."""
        return ((rows @ self.weight + self.bias > 0).long() == labels).double()


def train_probe(
    rows: Float[Tensor, "rows d"], labels: Int[Tensor, " rows"], settings: Targeted, seed: int
) -> TrainedProbe:
    """A probe by the published recipe."""
    draw = generator(seed, "probe")
    bound = rows.shape[1] ** -0.5
    weight = (torch.rand(rows.shape[1], generator=draw) * 2 - 1).mul(bound).requires_grad_()
    bias = (torch.rand(1, generator=draw) * 2 - 1).mul(bound).requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=settings.rate)
    targets = labels.float()
    with torch.enable_grad():
        for _ in range(settings.epochs):
            order = torch.randperm(len(rows), generator=draw)
            for chosen in order.split(settings.batch):
                scores = rows[chosen] @ weight + bias
                loss = functional.binary_cross_entropy_with_logits(scores, targets[chosen])
                loss = loss + settings.l1 * weight.abs().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return TrainedProbe(weight.detach(), float(bias.detach()))


def effects(
    codes: Float[Tensor, "rows n"],
    labels: Int[Tensor, " rows"],
    directions: Float[Tensor, "n d"],
    probe: TrainedProbe,
    *,
    signed: bool,
) -> Float[Tensor, " n"]:
    """Each latent's effect on a probe; `signed` counts what is larger on label 1 alone (TPP)."""
    gaps = codes[labels > 0].mean(0) - codes[labels == 0].mean(0)
    along = directions @ probe.weight
    return gaps.clamp(min=0) * along if signed else (gaps * along).abs()


def zeroed(
    stream: Float[Tensor, "rows d"],
    codes: Float[Tensor, "rows n"],
    directions: Float[Tensor, "n d"],
    by_effect: Float[Tensor, " n"],
    n: int,
) -> Float[Tensor, "rows d"]:
    """The pooled stream once the n latents of largest effect are zero; those without any stay."""
    many = min(n, int((by_effect != 0).sum()))
    chosen = by_effect.masked_fill(by_effect == 0, -torch.inf).topk(many).indices
    return stream - codes[:, chosen] @ directions[chosen]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Pooled rows of one dictionary with its directions.

    Attributes:
        train, test: {`STREAM`: …, name: latents}.
        directions: {name: of the dictionary}.
    """

    train: Pooled
    test: Pooled
    directions: Mapping[str, Float[Tensor, "n d"]]


def tpp_scores(
    rows: LabelledRows, marks: tuple[Tensor, Tensor], settings: Targeted, seed: int
) -> dict[tuple[str, int], Float[Tensor, " classes"]]:
    """{(dictionary, n): TPP of each class}.

    Args:
        marks: class of every training and test row.
    """
    count = int(marks[0].max()) + 1
    train = [_against(marks[0], one, seed, "train") for one in range(count)]
    test = [_against(marks[1], one, seed, "test") for one in range(count)]
    x, tested = rows.train[STREAM], rows.test[STREAM]
    trained = [train_probe(x[at], y, settings, seed) for at, y in train]
    clean = [float(p.right(tested[at], y).mean()) for p, (at, y) in zip(trained, test, strict=True)]
    found = {}
    for name, directions in rows.directions.items():
        strength = [
            effects(rows.train[name][at], y, directions, probe, signed=True)
            for probe, (at, y) in zip(trained, train, strict=True)
        ]
        for n in settings.n:
            values = []
            for own in range(count):
                changed = zeroed(tested, rows.test[name], directions, strength[own], n)
                lost = [
                    clean[other] - float(trained[other].right(changed[at], y).mean())
                    for other, (at, y) in enumerate(test)
                ]
                rest = [one for other, one in enumerate(lost) if other != own]
                values.append(lost[own] - sum(rest) / len(rest))
            found[name, n] = torch.tensor(values, dtype=torch.float64)
    return found


def _against(
    marks: Int[Tensor, " rows"], own: int, seed: int, what: str
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " chosen"]]:
    """Rows of a class, as many of the others, evenly of each; and their labels."""
    draw = generator(seed, "against", what, own)
    inside = (marks == own).nonzero().squeeze(1)
    others = [one for one in range(int(marks.max()) + 1) if one != own]
    each = -(-len(inside) // len(others))
    outside = []
    for other in others:
        at = (marks == other).nonzero().squeeze(1)
        outside.append(at[torch.randperm(len(at), generator=draw)[:each]])
    rest = torch.cat(outside)
    rest = rest[torch.randperm(len(rest), generator=draw)[: len(inside)]]
    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(rest))]).long()
    return torch.cat([inside, rest]), labels


@dataclass(frozen=True, eq=False)
class RemovedLatents:
    """SCR's parts on held-out rows: 1 where the label is told.

    Attributes:
        before: by the biased probe.
        clean: by a probe of the attribute itself.
        after: by the biased probe once latents are zero, {(dictionary, n): …}.
    """

    before: Float[Tensor, " rows"]
    clean: Float[Tensor, " rows"]
    after: dict[tuple[str, int], Float[Tensor, " rows"]]


def scr_scores(
    rows: LabelledRows,
    train: tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]],
    test: tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]],
    settings: Targeted,
    seed: int,
) -> RemovedLatents:
    """What zeroing the latents of the other attribute gives back.

    Args:
        train, test: (label, spurious attribute) of every row.
    """
    x, tested = rows.train[STREAM], rows.test[STREAM]
    together: Bool[Tensor, " rows"] = train[0] == train[1]
    biased = train_probe(x[together], train[0][together], settings, seed)
    own = [train_probe(x, labels, settings, seed) for labels in train]
    before = [biased.right(tested, labels) for labels in test]
    worse = 0 if float(before[0].mean()) < float(before[1].mean()) else 1
    other = 1 - worse
    after = {}
    for name, directions in rows.directions.items():
        strength = effects(rows.train[name], train[other], directions, own[other], signed=False)
        for n in settings.n:
            changed = zeroed(tested, rows.test[name], directions, strength, n)
            after[name, n] = biased.right(changed, test[worse])
    return RemovedLatents(before[worse], own[worse].right(tested, test[worse]), after)


def tpp_estimates(
    found: Mapping[tuple[str, int], Float[Tensor, " classes"]], place: Key
) -> list[Estimate]:
    """TPP for each n, mean over classes."""
    estimates = []
    for (name, n), values in found.items():
        if name != OWN:
            continue
        nulls = [Null.exact(NOTHING_CHANGED, 0.0, rival=True)]
        for other in dict.fromkeys(one for one, _ in found if one != OWN):
            theirs = found[other, n]
            around = or_point(float(theirs.mean()), normal_interval(theirs))
            gap = normal_interval(values - theirs)
            rival = other == RANDOM_DECODER
            nulls.append(Null(other, float(theirs.mean()), *around, rival, gap))
        at, value = replace(place, size=n), float(values.mean())
        interval, count = normal_interval(values), len(values)
        estimates.append(
            Estimate("evaluate.tpp", value, interval, count, "share", tuple(nulls), at)
        )
    return estimates


def scr_estimates(found: RemovedLatents, place: Key) -> list[Estimate]:
    """SCR for each n.

    Raises:
        InputError: the clean probe is no better than the biased one: nothing was to be removed.
    """
    below, ones = found.clean - found.before, torch.ones(len(found.before), dtype=torch.float64)
    if float(below.mean()) < _LEAST_GAP:
        raise InputError(
            f"scr: the probe trained where label and attribute go together is as good "
            f"({float(found.before.mean()):.2f}) as one of the label alone; give other texts"
        )
    estimates = []
    for (name, n), after in found.after.items():
        if name != OWN:
            continue
        value, interval = ratio(after - found.before, below, ones)
        nulls = [Null.exact(NOTHING_CHANGED, 0.0, rival=True)]
        for other in dict.fromkeys(one for one, _ in found.after if one != OWN):
            theirs = found.after[other, n]
            level, around = ratio(theirs - found.before, below, ones)
            _, gap = ratio(after - theirs, below, ones)
            rival = other == RANDOM_DECODER
            nulls.append(Null(other, level, *or_point(level, around), rival, gap))
        at = replace(place, size=n)
        estimates.append(
            Estimate("evaluate.scr", value, interval, len(after), "share", tuple(nulls), at)
        )
    return estimates


def targeted_units(
    found: Mapping[tuple[str, int], Tensor] | RemovedLatents, place: Key, ids: Sequence[str]
) -> list[Units]:
    """What TPP is made of, class by class, or SCR, text by text."""
    units = []
    if isinstance(found, RemovedLatents):
        for (name, n), after in found.after.items():
            if name == OWN:
                sums = (after - found.before, found.clean - found.before, torch.ones_like(after))
                one = Units.ratio("evaluate.scr", replace(place, size=n), ids, *sums)
                units.append(replace(one, kind="texts"))
        return units
    for (name, n), values in found.items():
        if name == OWN:
            at = replace(place, size=n)
            units.append(Units.mean("evaluate.tpp", at, "classes", ids, values))
    return units


@torch.no_grad()
def targeted(
    subject: OpenedSubject,
    others: Mapping[bool, Mapping[Site, Mapping[str, Dictionary]]],
    settings: Targeted,
    seed: int = 0,
    *,
    spurious: bool,
    units: list[Units] | None = None,
) -> tuple[list[Estimate], dict[str, Any], list[str]]:
    """(numbers, facts, warnings) of TPP, or of SCR where `spurious`.

    Args:
        units: collects what the numbers are made of.
    """
    units = [] if units is None else units
    train, test = (scr_texts if spurious else tpp_texts)(settings, seed)
    marks = [torch.tensor(part[1]) for part in (train, test)]
    estimates: list[Estimate] = []
    warnings: list[str] = []
    for site in subject.dictionaries:
        for adapter in subject.read_with:
            read = {OWN: subject.dictionary(site, adapter=adapter), **others[adapter][site]}
            apart: Any = {"adapter": adapter, "context": settings.context}
            both = [pooled(subject, part[0], site, read, **apart) for part in (train, test)]
            directions = {name: one.directions.float().cpu() for name, one in read.items()}
            rows = LabelledRows(both[0], both[1], directions)
            place = Key(
                adapter=subject.adapter if adapter else "",
                site=site.name,
                dictionary=subject.name,
                model=ADAPTED if adapter else SPLICED,
                topic=settings.source,
            )
            if not spurious:
                pair = (marks[0][:, 0], marks[1][:, 0])
                scores = tpp_scores(rows, pair, settings, seed)
                estimates += tpp_estimates(scores, place)
                whole = digest_of(test[0])
                names = [f"{one} of {whole}" for one in range(int(pair[0].max()) + 1)]
                units += targeted_units(scores, place, names)
                continue
            found = scr_scores(
                rows,
                (marks[0][:, 0], marks[0][:, 1]),
                (marks[1][:, 0], marks[1][:, 1]),
                settings,
                seed,
            )
            try:
                estimates += scr_estimates(found, place)
                units += targeted_units(found, place, text_ids(test[0]))
            except InputError as error:
                warnings.append(f"{site}, {place.model}: {error}")
    return estimates, {"rows": [len(train[0]), len(test[0])]}, warnings
