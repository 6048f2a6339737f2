"""Functional recovery: how much of an adapter's effect returns through one site.

1. `splice` runs the base over a survey's windows with something added to its stream at a site: the
   exact delta, a dictionary's reconstruction of it, and controls that know less of it.
2. `recovery_estimates` says which share of the adapter's change in loss and in KL returned.

Special tokens and attention sinks keep the base's stream, as capture leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.geometry.chance import norm_matched, random_rotation
from lorascope.measures.rows import chunks, rebuilt
from lorascope.measures.surveys import BothPasses, Survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.interventions import Recorded
from lorascope.models.sending import places, sent
from lorascope.models.sites import Site, parse_site
from lorascope.outputs.scoring import Outcome, Scored, alike
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import EXACT_DELTA
from lorascope.results.null_names import BIAS, MEAN_DELTA, NORM_MATCHED
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval, prediction_interval

NULL_REPEATS = 5
# Numbers in the streams that are put in side by side, and logits and positions of one pass.
_STREAMS, _LOGITS = 2**26, 2**26
_POSITIONS, _POSITIONS_ELSEWHERE = {"cpu": 2048}, 16384
RECONSTRUCTION = "reconstruction"
EXACT = EXACT_DELTA
ROTATED = "rotated at equal L0"
Rows = Float[Tensor, "rows d"]


@dataclass(frozen=True, eq=False)
class SiteRows:
    """The rows of a batch at one site; `batch` counts batches, so that each draws anew."""

    base: Rows
    deltas: Rows
    documents: Int[Tensor, " rows"]
    batch: int


# What is added to the base's stream.
Addition = Callable[[SiteRows], Rows]


@dataclass(frozen=True, eq=False)
class SplicedOutcomes:
    """Outcomes of the base with something added at a site.

    Attributes:
        survey: the two variants on the same windows.
        exact: {site: with the exact delta}.
        controls: {site: {control: its draws}}, the same for every dictionary.
        dictionaries: {place: {"reconstruction" or a control of this dictionary: its draws}}.
    """

    survey: Survey
    exact: dict[str, Outcome]
    controls: dict[str, dict[str, list[Outcome]]]
    dictionaries: dict[Key, dict[str, list[Outcome]]]


@torch.no_grad()
def splice(
    model: AdaptedModel,
    found: Survey,
    dictionaries: Mapping[Key, Dictionary],
    differences: Mapping[Key, Dictionary],
    means: Mapping[str, Float[Tensor, " d"]],
    *,
    seed: int = 0,
    repeats: int = NULL_REPEATS,
    as_sparse_as: Mapping[Key, Dictionary] | None = None,
) -> SplicedOutcomes:
    """Run the base with each addition at each site of the survey, all in the same batches.

    Args:
        dictionaries: by place, whose site says where it goes: D(h_Δ) is added.
        differences: likewise, G(h_adapted) − G(h_base) is added: a base dictionary is asked about
            the streams it was made for.
        means: {site: mean of the training deltas}, a control.
        repeats: draws of each random control, at least 2; 0 to leave all controls out.
        as_sparse_as: {place of a dictionary: another one}: no more latents may be active on a row
            than the other one has there, the largest stay.

    Raises:
        InputError: the adapter's outputs equal the base's within numeric noise.
    """
    found.require_effect()
    count = len(found.tokens)
    exact = {site.name: Outcome.empty(count) for site in found.pool}
    additions: dict[Site, list[tuple[Outcome, Addition]]] = {site: [] for site in found.pool}
    random = [generator(seed, "rotated", draw) for draw in range(repeats)]
    turns = [random_rotation(model.d_model, one) for one in random]
    controls = {
        site.name: _outcomes(_controls(found, site, means[site.name], seed, repeats), count, listed)
        for site, listed in additions.items()
    }
    sparser = as_sparse_as or {}
    written = {
        place: _outcomes(
            _sparse(each, sparser[place])
            if place in sparser
            else _of_dictionary(each, turns if place.draw is None else []),
            count,
            additions[parse_site(place.site)],
        )
        for place, each in dictionaries.items()
    }
    for place, each in differences.items():
        named = {RECONSTRUCTION: [partial(_difference, each)]}
        written[place] = _outcomes(named, count, additions[parse_site(place.site)])
    for number, passed in enumerate(found.passes(model)):
        _splice_batch(found, passed, number, exact, additions)
    return SplicedOutcomes(found, exact, controls, written)


def _splice_batch(
    found: Survey,
    passed: BothPasses,
    number: int,
    exact: Mapping[str, Outcome],
    additions: Mapping[Site, Sequence[tuple[Outcome, Addition]]],
) -> None:
    """Add one batch to every outcome."""
    batch, where, base, adapted = passed.batch, passed.where, passed.base, passed.adapted
    reference = where.log_probabilities(adapted.logits)
    rows = spliced_rows(where, base.streams, found.limits)
    owners = batch.documents[:, None].expand_as(batch.ids)[rows]
    for site, listed in additions.items():
        own, other = base.streams[site], adapted.streams[site]
        other, at = other.to(own.device), places(rows, own.device)
        rows_here = own[at].float()
        spot = SiteRows(rows_here, delta(other[at], rows_here), owners, number)

        # The adapted stream itself: base + delta is off by a rounding.
        restored = partial(_chosen_rows, sent(rows, own.device), other, own)
        made: list[tuple[Outcome, Callable[[], Tensor]]] = [(exact[site.name], restored)]
        made += [(outcome, partial(_given, own, at, spot, one)) for outcome, one in listed]
        size = max(1, _STREAMS // own.numel())
        for start in range(0, len(made), size):
            together = made[start : start + size]
            streams = torch.stack([make() for _, make in together])
            _add_together(base, site, where, reference, streams, [o for o, _ in together])


def _add_together(
    base: Recorded,
    site: Site,
    where: Scored,
    reference: Float[Tensor, "tokens vocab"],
    streams: Float[Tensor, "n batch seq d"],
    outcomes: Sequence[Outcome],
) -> None:
    """Resume a batch with several streams side by side, windows of like length in one pass."""
    device = base.ids.device
    most = _POSITIONS.get(device.type, _POSITIONS_ELSEWHERE)
    for chosen, width in alike(base.mask.sum(1).cpu(), max(1, most // len(streams))):
        tokens, scored = where.windows(chosen, width)
        if not len(tokens):
            continue
        given = streams[:, chosen.to(streams.device), :width]
        before = reference[tokens.to(reference.device)]
        size = max(1, _LOGITS // before.numel())
        for start in range(0, len(streams), size):
            some = given[start : start + size]
            part = base.windows(chosen.repeat(len(some)).to(device), width)
            logits = part.resume(site, some.flatten(0, 1)).unflatten(0, (len(some), -1))
            for outcome, one in zip(outcomes[start : start + size], logits, strict=True):
                outcome.add(scored, before, scored.log_probabilities(one))


def _chosen_rows(chosen: Tensor, there: Tensor, elsewhere: Tensor) -> Tensor:
    return torch.where(chosen[..., None], there, elsewhere)


def _given(stream: Tensor, at: tuple[Tensor, Tensor], spot: SiteRows, addition: Addition) -> Tensor:
    changed = stream.clone()
    changed[at] = (spot.base + addition(spot).to(stream.device)).to(stream.dtype)
    return changed


def spliced_rows(
    where: Scored, base: Mapping[Site, Float[Tensor, "batch seq d"]], limits: Mapping[Site, float]
) -> Bool[Tensor, "batch seq"]:
    """Kept tokens that are attention sinks at none of the sites."""
    rows = where.kept.clone()
    for site, stream in base.items():
        if site in limits:
            rows &= (stream.float().norm(dim=-1) <= limits[site]).cpu()
    return rows


def recovery_estimates(found: SplicedOutcomes, place: Key) -> list[Estimate]:
    """Share of the adapter's change of loss and of KL that each addition brings back.

    Loss: Σ (L_base − L_spliced) / Σ (L_base − L_adapted). KL: 1 − Σ KL(adapted ‖ spliced) /
    Σ KL(adapted ‖ base). Sums over scored tokens. 1 is the adapted model, 0 the base; what is
    worse than the base is below 0. The exact delta is the ceiling at its site, and below 1 where
    the adapter changes later blocks too.

    Loss is left out where the interval of the adapter's change of loss holds 0: a share of what
    may be nothing is no number.

    Args:
        place: the adapter and its rank.
    """
    estimates: list[Estimate] = []
    for measure in _measures(found.survey):
        for site, outcome in found.exact.items():
            here = replace(place, site=site, dictionary=EXACT)
            draws = {EXACT: [outcome], **found.controls[site]}
            estimates.append(_estimate(measure, found.survey, EXACT, draws, here))
        for here, own in found.dictionaries.items():
            draws = {**own, **(found.controls[here.site] if here.draw is None else {})}
            estimates.append(_estimate(measure, found.survey, RECONSTRUCTION, draws, here))
    return estimates


def _measures(found: Survey) -> list[str]:
    _, (low, high) = ratio(found.adapted.loss - found.base.loss, found.tokens)
    return ["recovery.kl"] if low <= 0 <= high else ["recovery.loss", "recovery.kl"]


def _estimate(
    measure: str,
    found: Survey,
    name: str,
    draws: Mapping[str, Sequence[Outcome]],
    place: Key,
) -> Estimate:
    value, interval = _recovered(measure, found, draws[name][0])
    chances = [Null.exact("nothing", 0.0)]
    for control, outcomes in draws.items():
        if control != name:
            chances.append(_chance(measure, found, control, outcomes))
    chances.sort(key=lambda chance: chance.high, reverse=True)
    total = int(found.tokens.sum())
    return Estimate(measure, value, interval, total, "share", tuple(chances), place)


def _recovered(measure: str, found: Survey, outcome: Outcome) -> tuple[float, Interval]:
    """The share, and its interval over documents."""
    if measure == "recovery.loss":
        part, whole = found.base.loss - outcome.loss, found.base.loss - found.adapted.loss
    else:
        part, whole = found.base.kl - outcome.kl, found.base.kl
    return ratio(part, whole, found.tokens)


def _chance(measure: str, found: Survey, control: str, outcomes: Sequence[Outcome]) -> Null:
    """Level: the mean of the draws. Interval: the wider of documents and draws."""
    each = [_recovered(measure, found, outcome) for outcome in outcomes]
    levels = [value for value, _ in each]
    bounds = [interval for _, interval in each]
    if len(levels) > 1:
        bounds.append(prediction_interval(levels))
    level = sum(levels) / len(levels)
    known = [(low, high) for low, high in bounds if low <= high] or [(level, level)]
    return Null(control, level, min(low for low, _ in known), max(high for _, high in known))


def _outcomes(
    named: Mapping[str, Sequence[Addition]],
    documents: int,
    into: list[tuple[Outcome, Addition]],
) -> dict[str, list[Outcome]]:
    """An empty outcome for every addition, put beside it into the list of its site."""
    made: dict[str, list[Outcome]] = {}
    for name, each in named.items():
        made[name] = [Outcome.empty(documents) for _ in each]
        into.extend(zip(made[name], each, strict=True))
    return made


def _controls(
    found: Survey, site: Site, mean: Float[Tensor, " d"], seed: int, repeats: int
) -> dict[str, list[Addition]]:
    """What knows of the deltas their mean, their norms, or their values but not their place."""
    if not repeats:
        return {}

    def norms_only(draw: int, spot: SiteRows) -> Rows:
        random = generator(seed, "norm-matched", site, draw, spot.batch)
        return norm_matched(spot.deltas, random)

    def elsewhere(draw: int, spot: SiteRows) -> Rows:
        random = generator(seed, "other documents", site, draw, spot.batch)
        return of_other_documents(*found.pool[site], spot.documents, random)

    known: dict[str, list[Addition]] = {
        MEAN_DELTA: [lambda spot: mean.expand_as(spot.deltas)],
        NORM_MATCHED: [partial(norms_only, draw) for draw in range(repeats)],
    }
    if len(found.pool[site][1].unique()) > 1:
        known["deltas of other documents"] = [partial(elsewhere, draw) for draw in range(repeats)]
    return known


def of_other_documents(
    pool: Rows,
    owners: Int[Tensor, " rows"],
    documents: Int[Tensor, " wanted"],
    random: torch.Generator,
) -> Float[Tensor, "wanted d"]:
    """For each document, a row of the pool that belongs to another; `owners` stand in order."""
    begin = torch.searchsorted(owners, documents)
    length = torch.searchsorted(owners, documents, right=True) - begin
    picks = (torch.rand(len(documents), generator=random) * (len(owners) - length)).long()
    return pool[picks + length * (picks >= begin)]


def _of_dictionary(
    dictionary: Dictionary, turns: Sequence[Float[Tensor, "d d"]]
) -> dict[str, list[Addition]]:
    """The reconstruction, the decoder bias alone, and the dictionary under random rotations; the
    reconstruction alone without rotations."""

    def rotated(turn: Float[Tensor, "d d"], spot: SiteRows) -> Rows:
        rows = spot.deltas.to(dictionary.directions)
        there = turn.to(rows)
        return torch.cat([rotated_at_equal_l0(dictionary, part, there) for part in chunks(rows)])

    if not turns:
        return {RECONSTRUCTION: [lambda spot: rebuilt(dictionary, spot.deltas)]}
    bias = dictionary.decoder_bias
    return {
        RECONSTRUCTION: [lambda spot: rebuilt(dictionary, spot.deltas)],
        BIAS: [lambda spot: bias.expand_as(spot.deltas)],
        ROTATED: [partial(rotated, turn) for turn in turns],
    }


def _sparse(dictionary: Dictionary, like: Dictionary) -> dict[str, list[Addition]]:
    """The reconstruction with no more active latents on any row than another dictionary's."""

    def sparse(spot: SiteRows) -> Rows:
        parts = chunks(spot.deltas.to(dictionary.directions))
        return torch.cat([_at_l0(dictionary, rows, like.encode(rows)) for rows in parts])

    return {RECONSTRUCTION: [sparse]}


def _at_l0(dictionary: Dictionary, rows: Rows, other: Float[Tensor, "rows m"]) -> Rows:
    return dictionary.decode(_largest(dictionary.encode(rows), (other > 0).sum(1)))


def _difference(dictionary: Dictionary, spot: SiteRows) -> Rows:
    adapted = rebuilt(dictionary, spot.base + spot.deltas)
    return adapted - rebuilt(dictionary, spot.base)


def rotated_at_equal_l0(dictionary: Dictionary, rows: Rows, turn: Float[Tensor, "d d"]) -> Rows:
    """Rows rebuilt by the dictionary under a rotation, with no more active latents on any row than
    the dictionary itself has there; the largest stay.

    Rotated, a dictionary that was trained to be silent on most latents can fire on several times
    as many, and more directions rebuild more of anything.
    """
    # What the rotated dictionary says of x is what this one says of x turned back.
    codes = dictionary.encode(rows @ turn.T)
    active = (dictionary.encode(rows) > 0).sum(1)
    return dictionary.decode(_largest(codes, active)) @ turn


def _largest(
    codes: Float[Tensor, "rows n"], counts: Int[Tensor, " rows"]
) -> Float[Tensor, "rows n"]:
    """The codes with the largest of each row alone, as many as `counts` says."""
    most = max(1, int(counts.max()))
    largest, places = codes.topk(min(most, codes.shape[1]), dim=1)
    within = torch.arange(largest.shape[1], device=codes.device) < counts[:, None]
    return torch.zeros_like(codes).scatter(1, places, largest * within)
