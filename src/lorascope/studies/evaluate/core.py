"""Core: how well dictionaries reconstruct their streams, and what splicing them costs.

Per site, on held-out rows x of the stream the dictionary reads:

    FVU = Σ ‖x − x̂‖² / Σ ‖x − x̄‖²        L0 = active latents a row        dead: latents never active

Per condition, on held-out tokens, with L the cross-entropy and K = KL(reference ‖ condition):

    CE recovered = (L_ablated − L) / (L_ablated − L_reference)
    KL recovered = 1 − K / K_ablated

where ablated puts zero, or the training rows' mean, in the stream's place at every site. The
reference is the model without dictionaries: the original, or the fine-tuned model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.tokens import Window
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.fits.conditions import ADAPTED, ORIGINAL, SPLICED, UNSPLICED
from lorascope.models.sites import Site
from lorascope.outputs.conditions import Condition
from lorascope.outputs.evaluation import Evaluated, evaluate
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import (
    ABLATED,
    NO_ADAPTER,
    NOTHING_SPLICED,
    OTHER_DICTIONARY,
    RANDOM_DECODER,
    UNADAPTED,
)
from lorascope.stats.documents import ratio, smooth
from lorascope.stats.intervals import or_point
from lorascope.studies.evaluate.baselines import random_decoder
from lorascope.studies.evaluate.reconstructing import Reconstructed, tell
from lorascope.studies.evaluate.rows import StreamRows, stream_rows
from lorascope.studies.evaluate.subjects import OpenedSubject, Put
from lorascope.studies.evaluate.units import Units, document_ids

ZERO, MEAN, RANDOM, RESEEDED = "zero", "mean", "random", "reseeded"
# Kinds of ablation, as settings of keys.
ABLATIONS = (ZERO, MEAN)
RECOVERED = {"ce": "evaluate.ce_recovered", "kl": "evaluate.kl_recovered"}


@dataclass(frozen=True, eq=False)
class Baselines:
    """What stands beside the dictionaries of a subject, with the adapter off or on.

    Attributes:
        means: of the training rows.
        random: random-decoder dictionaries.
    """

    means: dict[Site, Float[Tensor, " d"]]
    random: dict[Site, Dictionary]


@dataclass(frozen=True, eq=False)
class CoreFound:
    """What core found.

    Attributes:
        estimates: all numbers.
        facts: what is no estimate, by site: the histogram of firing rates.
        units: what the numbers are made of, document by document.
    """

    estimates: list[Estimate] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    units: list[Units] = field(default_factory=list)


@torch.no_grad()
def core(
    subject: OpenedSubject, training: Sequence[Window], held_out: Sequence[Window], seed: int = 0
) -> CoreFound:
    """Reconstruction at every site, and loss and KL of every condition.

    Args:
        training: texts that give means, covariances and the baselines.
        held_out: texts that are measured on.
    """
    found, ids = CoreFound(), document_ids(held_out)
    baselines: dict[bool, Baselines] = {}
    told: dict[bool, dict[Site, Reconstructed]] = {}
    for adapter in subject.read_with if subject.dictionaries else ():
        learned = stream_rows(subject, training, adapter=adapter)
        measured = stream_rows(subject, held_out, adapter=adapter)
        baselines[adapter], told[adapter] = _reconstruct(subject, learned, measured, adapter, seed)
        for site, one in told[adapter].items():
            place = _place(subject, ADAPTED if adapter else SPLICED, site.name)
            found.estimates.extend(one.estimates(place))
            whose = measured[site].documents.unique().tolist()
            found.units.extend(one.units(place, [ids[document] for document in whose]))
            found.facts.append({"site": site.name, "condition": place.model, **one.facts()})
    if len(told) == 2:
        for site in subject.dictionaries:
            place = _place(subject, ADAPTED, site.name)
            found.estimates.extend(told[True][site].less(told[False][site], place))
    plain, shares = _losses(subject, held_out, baselines)
    found.estimates.extend(_loss_estimates(subject, plain, shares))
    found.units.extend(_loss_units(subject, plain, shares, ids))
    return found


def _reconstruct(
    subject: OpenedSubject,
    learned: Mapping[Site, StreamRows],
    measured: Mapping[Site, StreamRows],
    adapter: bool,
    seed: int,
) -> tuple[Baselines, dict[Site, Reconstructed]]:
    means, random, told = {}, {}, {}
    for site, rows in learned.items():
        dictionary = subject.dictionary(site, adapter=adapter)
        means[site] = rows.rows.double().mean(0).float()
        l0 = active_latents(dictionary, rows.rows)
        random[site] = random_decoder(dictionary, rows.rows, l0, seed, subject.name, site.name)
        others: dict[str, Dictionary] = {RANDOM_DECODER: random[site]}
        if site in subject.reseeded:
            others[OTHER_DICTIONARY] = subject.reseeded[site]
        told[site] = tell(dictionary, rows.rows, measured[site], others)
    return Baselines(means, dict(random)), told


def active_latents(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> float:
    """Mean active latents of the first rows."""
    some = rows[:2048].to(dictionary.directions)
    return float((dictionary.encode(some) > 0).sum(1).double().mean())


def _place(subject: OpenedSubject, condition: str, site: str = "") -> Key:
    """Where a number stands: subject, condition, adapter, site."""
    where = site or "+".join(one.name for one in subject.dictionaries)
    with_adapter = condition in (ADAPTED, UNSPLICED)
    return Key(
        adapter=subject.adapter if with_adapter else "",
        site=where,
        dictionary=subject.name,
        model=condition,
    )


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _constant(mean: Tensor, x: Tensor) -> Tensor:
    return mean.to(x).expand_as(x)


def _compared_with(subject: OpenedSubject, side: str, beside: Baselines) -> dict[str, Condition]:
    """Ablations and baselines that one side is compared with, run as their reference is."""
    adapter = subject.reference(side) == UNSPLICED
    puts: dict[str, Put] = {
        ZERO: dict.fromkeys(subject.dictionaries, _zeros),
        MEAN: {site: partial(_constant, mean) for site, mean in beside.means.items()},
        RANDOM: beside.random,
    }
    if subject.reseeded and set(subject.reseeded) == set(subject.dictionaries):
        puts[RESEEDED] = subject.reseeded
    return {name: subject.put(put, adapter=adapter) for name, put in puts.items()}


# {condition: how the model did}, and of each side with dictionaries all that it is held against.
Plain = dict[str, Evaluated]
Shares = dict[str, dict[str, Evaluated]]


def _losses(
    subject: OpenedSubject, held_out: Sequence[Window], baselines: Mapping[bool, Baselines]
) -> tuple[Plain, Shares]:
    conditions = {name: subject.condition(name) for name in subject.conditions}
    run = partial(evaluate, subject.module, subject.tokenizer, held_out)
    direction: Any = "original_spliced"
    plain = run(conditions[ORIGINAL], conditions, direction=direction)
    shares: Shares = {}
    for side in subject.sides:
        reference = subject.reference(side)
        adapter = reference == UNSPLICED
        own = _compared_with(subject, side, baselines[adapter if adapter in baselines else True])
        again = {"reference": conditions[reference], "side": conditions[side], **own}
        if side == ADAPTED and subject.fitted and shares:
            # the same reference and the same ablations: they need not be run again
            again = {"reference": conditions[reference], "side": conditions[side]}
            shares[side] = {
                **shares[SPLICED],
                **run(again["reference"], again, direction=direction),
            }
        else:
            shares[side] = run(again["reference"], again, direction=direction)
    return plain, shares


def _loss_estimates(subject: OpenedSubject, plain: Plain, shares: Shares) -> list[Estimate]:
    found: list[Estimate] = []
    for name, one in plain.items():
        found += _absolute(subject, name, one, plain[ORIGINAL])
    for side in subject.sides:
        before = shares[SPLICED]["side"] if side == ADAPTED and subject.fitted else None
        found += recovered(subject, side, shares[side], before)
    if set(subject.sides) == {SPLICED, ADAPTED}:
        found += _changes(subject, shares)
    return found


def _loss_units(
    subject: OpenedSubject, plain: Plain, shares: Shares, ids: Sequence[str]
) -> list[Units]:
    found = []
    for name, one in plain.items():
        place = _place(subject, name)
        sums = {"loss": one.loss} if name == ORIGINAL else {"loss": one.loss, "kl": one.kl}
        for measure, above in sums.items():
            found.append(
                Units.ratio(f"evaluate.{measure}", place, ids, above, one.tokens, one.tokens)
            )
    for side, beside in shares.items():
        tokens = beside["side"].tokens
        for kind in RECOVERED:
            for ablation in ABLATIONS:
                above, below = _parts(kind, beside["side"], beside[ablation], beside["reference"])
                if _costs(below, tokens):
                    place = replace(_place(subject, side), setting=f"{ablation} ablation")
                    found.append(Units.ratio(RECOVERED[kind], place, ids, above, below, tokens))
    return found


def _absolute(
    subject: OpenedSubject, condition: str, one: Evaluated, original: Evaluated
) -> list[Estimate]:
    """Loss of one condition, and its KL from the original."""
    place, n = _place(subject, condition), int(one.tokens.sum())
    nulls: tuple[Null, ...] = ()
    if condition != ORIGINAL:
        level, around = ratio(original.loss, original.tokens)
        _, gap = ratio(one.loss - original.loss, one.tokens)
        low, high = or_point(level, around)
        nulls = (Null(NOTHING_SPLICED, level, low, high, rival=True, difference=gap),)
    value, interval = ratio(one.loss, one.tokens)
    found = [Estimate("evaluate.loss", value, interval, n, "nats/token", nulls, place)]
    if condition != ORIGINAL:
        value, interval = ratio(one.kl, one.tokens)
        zero = (Null.exact(NOTHING_SPLICED, 0.0, rival=True),)
        found.append(Estimate("evaluate.kl", value, interval, n, "nats/token", zero, place))
    return found


Sums = Float[Tensor, " documents"]


def _parts(
    kind: str, one: Evaluated, ablated: Evaluated, reference: Evaluated
) -> tuple[Sums, Sums]:
    """(numerator, denominator) by document of what one recovers."""
    if kind == "ce":
        return ablated.loss - one.loss, ablated.loss - reference.loss
    return ablated.kl - one.kl, ablated.kl


def recovered(
    subject: OpenedSubject, side: str, found: Mapping[str, Evaluated], before: Evaluated | None
) -> list[Estimate]:
    """CE and KL recovered of one condition with dictionaries, for each ablation.

    Left out where the ablation may cost nothing.

    Args:
        found: `reference`, `side` (the condition itself), `zero`, `mean`, `random` and, where there
            is one, `reseeded`; KL is from the reference in all of them.
        before: of a fit, the same without the adapter.
    """
    estimates = []
    for kind in ("ce", "kl"):
        for ablation in ABLATIONS:
            parts = partial(_parts, kind, ablated=found[ablation], reference=found["reference"])
            tokens = found["side"].tokens
            above, below = parts(found["side"])
            if not _costs(below, tokens):
                continue
            value, interval = ratio(above, below, tokens)
            others = {RANDOM_DECODER: found[RANDOM]}
            if RESEEDED in found:
                others[OTHER_DICTIONARY] = found[RESEEDED]
            if before is not None:
                others = {UNADAPTED: before, **others}
            nulls = [Null.exact(ABLATED, 0.0, rival=True)]
            nulls += [
                _beside(name, above, below, parts(one)[0], tokens, name != OTHER_DICTIONARY)
                for name, one in others.items()
            ]
            place = replace(_place(subject, side), setting=f"{ablation} ablation")
            n = int(tokens.sum())
            estimates.append(
                Estimate(RECOVERED[kind], value, interval, n, "share", tuple(nulls), place)
            )
    return estimates


def _costs(below: Sums, tokens: Sums) -> bool:
    """Whether the ablation costs anything: a share of what may be nothing is no number."""
    value, (low, _) = ratio(below, tokens)
    return value > 0 and not low <= 0


def _beside(name: str, above: Sums, below: Sums, other: Sums, tokens: Sums, rival: bool) -> Null:
    level, around = ratio(other, below, tokens)
    _, gap = ratio(above - other, below, tokens)
    return Null(name, level, *or_point(level, around), rival=rival, difference=gap)


def _changes(
    subject: OpenedSubject, shares: Mapping[str, Mapping[str, Evaluated]]
) -> list[Estimate]:
    """Paired differences, with the adapter less without it."""
    without, with_ = shares[SPLICED], shares[ADAPTED]
    tokens = with_["side"].tokens
    found = []
    for name in ("loss", "kl"):
        one, other = getattr(with_["side"], name), getattr(without["side"], name)
        value, interval = ratio(one - other, tokens)
        place = replace(_place(subject, ADAPTED), about=f"evaluate.{name}")
        found.append(_change(value, interval, int(tokens.sum()), "nats/token", place))
    for kind in ("ce", "kl"):
        for ablation in ABLATIONS:
            sides = [
                _parts(kind, one["side"], one[ablation], one["reference"])
                for one in (with_, without)
            ]
            if not all(_costs(below, tokens) for _, below in sides):
                continue
            columns = torch.stack([column for side in sides for column in side], 1)
            value, interval = smooth(_gap, columns, tokens)
            about = RECOVERED[kind]
            place = replace(_place(subject, ADAPTED), about=about, setting=f"{ablation} ablation")
            found.append(_change(value, interval, int(tokens.sum()), "share", place))
    return found


def _gap(sums: Float[Tensor, "repeats 4"]) -> Float[Tensor, " repeats"]:
    return sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]


def _change(value: float, interval: tuple[float, float], n: int, unit: str, place: Key) -> Estimate:
    nulls = (Null.exact(NO_ADAPTER, 0.0, rival=True),)
    return Estimate("evaluate.change", value, interval, n, unit, nulls, place)
