"""Absorption of first letters, by the formulas and thresholds of SAEBench 0.6.0 (Chanin et al.).

With x the stream at a word's token, p the unit direction of a linear probe that tells the word's
letter from x, z the latents, w_i their directions and c_i = cos(w_i, p):

    projection of x: x·p        projection of latent i: z_i c_i

1. A probe a letter: logistic regression on x of training words, both labels weighed alike. Letters
   whose probe reaches an F1 of `probe_f1` on the other words are looked at.
2. The letter's main latents: ranked by how far a latent's mean on words of the letter is above its
   mean on others, in standard deviations of the latent; a regression on the first k, k = 1, 2, ….
   As long as one more latent raises F1 by more than `f1_jump` it is a main latent too.
3. Words held out whose letter the probe tells:
   *full absorption* where no main latent is active, the latent with the largest projection has
   c ≥ `full_cosine`, and its projection is at least `share` of x's;
   *absorption fraction* a / (a + m): m the main latents' projection, a what the `absorbers` other
   latents of largest positive projection and c ≥ `fraction_cosine` bring together, at most what m
   leaves of x's. 0 where m is all of it, or where they bring less than `share` of x's; 1 where
   m ≤ 0.

SAEBench trains the probes of step 1, and an L1-penalised one that ranks the latents in step 2, with
Adam; here both are deterministic. The formulas of step 3 are the same.
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
from lorascope.fits.conditions import ADAPTED, SPLICED
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NO_ADAPTER, NOTHING_CHANGED
from lorascope.stats.intervals import normal_interval, or_point, within
from lorascope.studies.evaluate.letters import LETTERS, Word, labels_of, word_rows, words
from lorascope.studies.evaluate.logistic import Logistic, fit_logistic
from lorascope.studies.evaluate.settings import Absorption
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.studies.evaluate.units import Units, digest_of

ACTIVE = 1e-8
FULL, FRACTION, SPLITS = (
    "evaluate.absorption_full",
    "evaluate.absorption_fraction",
    "evaluate.absorption_splits",
)
_TRAIN_SHARE = 0.8


@dataclass(frozen=True, eq=False)
class Probed:
    """A letter's probe on the stream.

    Attributes:
        letter: its number.
        direction: unit vector.
        f1: on the words held out.
        told: held-out words of the letter that the probe tells.
    """

    letter: int
    direction: Float[Tensor, " d"]
    f1: float
    told: Int[Tensor, " words"]


@dataclass(frozen=True)
class Letter:
    """What one dictionary makes of one letter.

    Attributes:
        main: its main latents.
        full: share of told words that are absorbed in full.
        fraction: mean absorption fraction of told words.
        words: how many were told.
        absorbing: latents that absorbed in full, with how many words each.
    """

    letter: int
    main: tuple[int, ...]
    full: float
    fraction: float
    words: int
    absorbing: Mapping[int, int]


def f1_score(predicted: Bool[Tensor, " n"], true: Bool[Tensor, " n"]) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing is true or predicted."""
    hits = int((predicted & true).sum())
    total = int(predicted.sum()) + int(true.sum())
    return 2 * hits / total if total else 0.0


def letter_probes(
    rows: Float[Tensor, "words d"],
    letters: Int[Tensor, " words"],
    train: Bool[Tensor, " words"],
    least: float,
) -> list[Probed]:
    """The letters that a linear probe tells well enough from the stream.

    Args:
        train: words the probes are fitted on; the others are held out.
        least: F1 on the others.
    """
    mean, spread = rows[train].mean(0), rows[train].std() + 1e-8
    scaled = (rows - mean) / spread
    found = []
    for letter in range(len(LETTERS)):
        true = letters == letter
        if int((true & train).sum()) < 5 or int((true & ~train).sum()) < 2:
            continue
        fitted = fit_logistic(scaled[train], true[train].long(), balanced=True)
        scores = fitted.scores(scaled)
        f1 = f1_score(scores[~train] > 0, true[~train])
        told = (true & ~train & (scores > 0)).nonzero().squeeze(1)
        if f1 > least and len(told):
            direction = torch.from_numpy(fitted.weight).float()
            found.append(Probed(letter, direction / direction.norm(), f1, told))
    return found


def main_latents(
    codes: Float[Tensor, "words n"],
    true: Bool[Tensor, " words"],
    train: Bool[Tensor, " words"],
    settings: Absorption,
) -> tuple[int, ...]:
    """The main latents of a letter, best first: each raises F1 on held-out words by the jump.

    Those whose mean on words of the letter is above that on others alone are tried.
    """
    inside, outside = codes[train & true], codes[train & ~true]
    gaps = (inside.mean(0) - outside.mean(0)) / (codes[train].std(0) + 1e-8)
    ranked = gaps.argsort(descending=True, stable=True)[: settings.most]
    ranked = ranked[gaps[ranked] > 0]
    best, chosen = float("-inf"), 0
    for k in range(1, len(ranked) + 1):
        columns = codes[:, ranked[:k]]
        fitted: Logistic = fit_logistic(columns[train], true[train].long(), balanced=True)
        score = f1_score(fitted.scores(columns[~train]) > 0, true[~train])
        if score <= best + settings.f1_jump:
            break
        best, chosen = score, k
    return tuple(ranked[:chosen].tolist())


def full_absorption(
    codes: Float[Tensor, "words n"],
    cosines: Float[Tensor, " n"],
    projection: Float[Tensor, " words"],
    main: Sequence[int],
    settings: Absorption,
) -> tuple[Bool[Tensor, " words"], Int[Tensor, " words"]]:
    """(which words are absorbed in full, the latent of largest projection of each)."""
    written = codes * cosines
    value, place = written.max(1)
    silent = (codes[:, list(main)] < ACTIVE).all(1)
    aligned = cosines[place] >= settings.full_cosine
    share = value / projection.clamp(min=1e-12)
    return silent & aligned & (projection > 0) & (share >= settings.share), place


def absorption_fraction(
    codes: Float[Tensor, "words n"],
    cosines: Float[Tensor, " n"],
    projection: Float[Tensor, " words"],
    main: Sequence[int],
    settings: Absorption,
) -> Float[Tensor, " words"]:
    """The share of each word's projection that latents other than the main ones took over."""
    written = codes * cosines
    kept = written[:, list(main)].sum(1)
    others = written.clone()
    others[:, list(main)] = 0.0
    others[:, cosines < settings.fraction_cosine] = 0.0
    many = min(settings.absorbers, others.shape[1])
    brought = others.clamp(min=0).topk(many, dim=1).values.sum(1)
    taken = torch.minimum(brought, projection - kept)
    fraction = (taken / (taken + kept).clamp(min=1e-12)).clamp(0.0, 1.0)
    fraction = torch.where(kept <= 0, torch.ones_like(fraction), fraction)
    enough = (brought / projection) >= settings.share
    return torch.where((kept >= projection) | ~enough, torch.zeros_like(fraction), fraction)


@torch.no_grad()
def absorbed(
    dictionary: Dictionary,
    rows: Float[Tensor, "words d"],
    letters: Int[Tensor, " words"],
    train: Bool[Tensor, " words"],
    probes: Sequence[Probed],
    settings: Absorption,
) -> list[Letter]:
    """What one dictionary makes of every letter that the stream's probes tell."""
    codes = dictionary.encode(rows.to(dictionary.directions)).float().cpu()
    directions = dictionary.directions.float().cpu()
    found = []
    for one in probes:
        main = main_latents(codes, letters == one.letter, train, settings)
        cosines = functional.cosine_similarity(directions, one.direction[None], dim=1)
        inside, projection = codes[one.told], rows[one.told] @ one.direction
        full, place = full_absorption(inside, cosines, projection, main, settings)
        fraction = absorption_fraction(inside, cosines, projection, main, settings)
        by_latent: dict[int, int] = {}
        for latent in place[full].tolist():
            by_latent[latent] = by_latent.get(latent, 0) + 1
        shares = (float(full.double().mean()), float(fraction.double().mean()))
        found.append(Letter(one.letter, main, *shares, len(one.told), by_latent))
    return found


def letter_estimates(
    own: Sequence[Letter], others: Mapping[str, Sequence[Letter]], place: Key
) -> list[Estimate]:
    """Means over letters, beside other dictionaries' on the same letters."""
    estimates = []
    for measure, unit, value_of in _VALUES:
        mine = torch.tensor([value_of(one) for one in own], dtype=torch.float64)
        floor = 1.0 if measure == SPLITS else 0.0
        nulls = [Null.exact(NOTHING_CHANGED, floor, rival=measure != SPLITS)]
        for name, letters in others.items():
            theirs = torch.tensor([value_of(one) for one in letters], dtype=torch.float64)
            level = float(theirs.mean())
            around = or_point(level, normal_interval(theirs))
            nulls.append(Null(name, level, *around, difference=normal_interval(mine - theirs)))
        interval = normal_interval(mine)
        if measure != SPLITS:
            interval = within(interval, 0.0, 1.0)
        value = float(mine.mean())
        estimates.append(Estimate(measure, value, interval, len(own), unit, tuple(nulls), place))
    return estimates


def letter_units(own: Sequence[Letter], place: Key, chosen: Sequence[Word]) -> list[Units]:
    """What the means over letters are made of."""
    whole = digest_of(one.text for one in chosen)
    ids = [f"{LETTERS[one.letter]} of {whole}" for one in own]
    return [
        Units.mean(measure, place, "letters", ids, [value_of(one) for one in own])
        for measure, _, value_of in _VALUES
    ]


_VALUES: Any = (
    (FULL, "share", lambda one: one.full),
    (FRACTION, "share", lambda one: one.fraction),
    (SPLITS, "latents", lambda one: float(len(one.main))),
)


def _changes(with_: Sequence[Letter], without: Sequence[Letter], place: Key) -> list[Estimate]:
    """With the adapter less without it, of letters that both probes tell."""
    known = {one.letter: one for one in without}
    pairs = [(one, known[one.letter]) for one in with_ if one.letter in known]
    found = []
    for measure, unit, value_of in _VALUES:
        gaps = torch.tensor([value_of(one) - value_of(other) for one, other in pairs])
        if not len(gaps):
            continue
        nulls = (Null.exact(NO_ADAPTER, 0.0, rival=True),)
        interval = normal_interval(gaps)
        at = replace(place, about=measure)
        value = float(gaps.double().mean())
        found.append(Estimate("evaluate.change", value, interval, len(gaps), unit, nulls, at))
    return found


def split_words(chosen: Sequence[Word], seed: int) -> Bool[Tensor, " words"]:
    """Four of five words to fit probes on, drawn; the others are held out."""
    draws = torch.rand(len(chosen), generator=generator(seed, "absorption"))
    return draws < _TRAIN_SHARE


def absorption(
    subject: OpenedSubject,
    others: Mapping[bool, Mapping[Site, Mapping[str, Dictionary]]],
    settings: Absorption,
    seed: int = 0,
    units: list[Units] | None = None,
) -> tuple[list[Estimate], dict[str, Any], list[str]]:
    """(numbers, letters by site and condition, warnings) of every dictionary of a subject.

    Args:
        others: {adapter on: {site: dictionaries to stand beside, by name of the null}}.
        units: collects what the numbers are made of.
    """
    chosen = words(subject.tokenizer, settings.words, seed)
    letters, train = labels_of(chosen), split_words(chosen, seed)
    estimates: list[Estimate] = []
    facts: dict[str, Any] = {}
    warnings = []
    for site in subject.dictionaries:
        taken: dict[bool, list[Letter]] = {}
        for adapter in subject.read_with:
            condition = ADAPTED if adapter else SPLICED
            rows = word_rows(subject, chosen, settings.examples, site, adapter=adapter, seed=seed)
            known = letter_probes(rows, letters, train, settings.probe_f1)
            if len(known) < 2:
                warnings.append(
                    f"absorption: the stream at {site} tells {len(known)} first letters with an F1 "
                    f"above {settings.probe_f1}; it takes two: a lower absorption.probe_f1, or "
                    "another site"
                )
                continue
            read = (rows, letters, train, known, settings)
            place = Key(
                adapter=subject.adapter if adapter else "",
                site=site.name,
                dictionary=subject.name,
                model=condition,
            )
            own = absorbed(subject.dictionary(site, adapter=adapter), *read)
            beside = {name: absorbed(d, *read) for name, d in others[adapter][site].items()}
            estimates += letter_estimates(own, beside, place)
            if units is not None:
                units += letter_units(own, place, chosen)
            taken[adapter] = own
            facts[f"{site}, {condition}"] = [
                _fact(one, probe.f1) for one, probe in zip(own, known, strict=True)
            ]
        if len(taken) == 2:
            at = Key(
                adapter=subject.adapter, site=site.name, dictionary=subject.name, model=ADAPTED
            )
            estimates += _changes(taken[True], taken[False], at)
    return estimates, facts, warnings


def _fact(one: Letter, f1: float) -> dict[str, Any]:
    return {
        "letter": LETTERS[one.letter],
        "probe_f1": f1,
        "words": one.words,
        "main": list(one.main),
        "full": one.full,
        "fraction": one.fraction,
        "absorbing": {str(latent): count for latent, count in one.absorbing.items()},
    }
