"""RAVEL-style disentangling: can one attribute of an entity be changed by its latents alone?

From prompts that the user brings, each about one attribute of one entity ("Paris is in the country
of" → " France"), those that the model answers right. For an attribute A at a site, with z the
latents at the entity's last token:

1. The k latents that tell A's values apart best: variance of their means over values, by that
   within values, on half of the entities.
2. For pairs of the other half's prompts about A with different answers, the k latents of the base
   prompt's entity become those of the source's: x + Σ (z_i(source) − z_i(base)) w_i.
3. *Cause*: the next token becomes the source's answer. *Isolation*: under the same exchange, the
   base entity's prompts about other attributes keep their answer.

The score is their mean. Doing nothing has no cause and full isolation: ½ is the floor.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.fits.conditions import ADAPTED, SPLICED
from lorascope.models.hooks import replace as replaced
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site
from lorascope.randomness import derived_seed
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import NOTHING_CHANGED, RANDOM_DECODER
from lorascope.stats.intervals import normal_interval, or_point, wilson_interval, within
from lorascope.studies.evaluate.labelled import prompt_rows
from lorascope.studies.evaluate.probing import OWN
from lorascope.studies.evaluate.settings import Disentangling
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.studies.evaluate.units import Units, digest_of

_FEWEST = 8
_KINDS = ("cause", "isolation")


@dataclass(frozen=True)
class RavelPrompt:
    """One prompt that the model answers right.

    Attributes:
        ids: token ids.
        place: of the entity's last token.
        answer: first token of the answer.
    """

    text: str
    entity: str
    attribute: str
    ids: tuple[int, ...]
    place: int
    answer: int


@dataclass(frozen=True)
class Pair:
    """An exchange, and what shows what it does.

    Attributes:
        base, source: prompts about one attribute, of different answers.
        others: prompts about the base entity's other attributes.
    """

    base: RavelPrompt
    source: RavelPrompt
    others: tuple[RavelPrompt, ...]


def read_prompts(source: str, tokenizer: Any) -> list[RavelPrompt]:
    """The prompts of a table, as token ids.

    Raises:
        InputError: a column is missing, or an entity does not stand in its prompt.
    """
    found = []
    for row in prompt_rows(source):
        text, entity = row["prompt"], row["entity"]
        end = text.rfind(entity) + len(entity)
        coded = tokenizer(text, return_offsets_mapping=True)
        spans = coded["offset_mapping"]
        place = max(i for i, (start, stop) in enumerate(spans) if start < end and stop > start)
        answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"][0]
        ids = tuple(coded["input_ids"])
        found.append(RavelPrompt(text, entity, row["attribute"], ids, place, answer))
    return found


@torch.no_grad()
def next_token(subject: OpenedSubject, prompt: RavelPrompt, *, adapter: bool) -> int:
    """The most likely next token, nothing spliced."""
    with subject.condition("unspliced" if adapter else "original")():
        logits = subject.module(torch.tensor([prompt.ids], device=subject.device)).logits
    return int(logits[0, -1].argmax())


def pairs_of(
    known: Sequence[RavelPrompt], attribute: str, most: int, seed: int
) -> tuple[list[RavelPrompt], list[Pair]]:
    """(prompts to choose latents on, pairs of other entities' prompts) of one attribute.

    Raises:
        InputError: too few pairs.
    """
    draw = random.Random(derived_seed(seed, "pairs", attribute))
    entities = sorted({one.entity for one in known})
    draw.shuffle(entities)
    first = set(entities[: len(entities) // 2])
    learned = [one for one in known if one.attribute == attribute and one.entity in first]
    rest = [one for one in known if one.attribute == attribute and one.entity not in first]
    found = []
    for base in rest:
        others = tuple(
            one for one in known if one.entity == base.entity and one.attribute != attribute
        )
        sources = [one for one in rest if one.answer != base.answer and others]
        found += [Pair(base, source, others) for source in sources]
    draw.shuffle(found)
    if len(found) < _FEWEST or len({one.answer for one in learned}) < 2:
        raise InputError(
            f"{attribute}: {len(found)} pairs of prompts that the model answers right, with "
            f"different answers, and with other attributes of the same entity; {_FEWEST} are needed"
        )
    return learned, found[:most]


def telling(
    codes: Float[Tensor, "prompts n"], values: Int[Tensor, " prompts"]
) -> Int[Tensor, " n"]:
    """Latents by how well they tell values apart, best first: variance of the means over values,
    by the mean variance within them."""
    means, within_ = [], []
    for value in values.unique():
        inside = codes[values == value]
        means.append(inside.mean(0))
        within_.append(inside.var(0, unbiased=False))
    between = torch.stack(means).var(0, unbiased=False)
    ratio = between / (torch.stack(within_).mean(0) + 1e-4 * float(between.max()) + 1e-12)
    return ratio.argsort(descending=True, stable=True)


def _paired(
    known: Sequence[RavelPrompt], names: Sequence[str], most: int, seed: int
) -> tuple[dict[str, tuple[list[RavelPrompt], list[Pair]]], list[str]]:
    """(what `pairs_of` gives by attribute, a line for each attribute left out)."""
    parts, left_out = {}, []
    for name in names:
        try:
            parts[name] = pairs_of(known, name, most, seed)
        except InputError as error:
            left_out.append(str(error))
    return parts, left_out


@torch.no_grad()
def row_at(
    subject: OpenedSubject, prompt: RavelPrompt, site: Site, *, adapter: bool
) -> Float[Tensor, " d"]:
    """The stream at the entity's last token."""
    ids = torch.tensor([prompt.ids], device=subject.device)
    with subject.condition("unspliced" if adapter else "original")():
        return run_until(subject.module, [site], ids)[site][0, prompt.place].float()


@torch.no_grad()
def exchanged(
    subject: OpenedSubject,
    prompt: RavelPrompt,
    site: Site,
    added: Float[Tensor, " d"],
    *,
    adapter: bool,
) -> int:
    """The most likely next token with `added` put onto the entity's last token."""

    def put(place: int, x: Tensor) -> Tensor:
        new = x.clone()
        new[:, place] += added.to(x)
        return new

    condition = subject.condition("unspliced" if adapter else "original")
    ids = torch.tensor([prompt.ids], device=subject.device)
    with condition(), replaced(subject.module, site, partial(put, prompt.place)):
        logits = subject.module(ids, use_cache=False).logits
    return int(logits[0, -1].argmax())


@torch.no_grad()
def outcomes(
    subject: OpenedSubject,
    dictionary: Dictionary | None,
    site: Site,
    learned: Sequence[RavelPrompt],
    pairs: Sequence[Pair],
    k: int,
    *,
    adapter: bool,
) -> dict[str, Float[Tensor, " pairs"]]:
    """{"cause", "isolation"}: of each pair, whether, and for which share of the others.

    Args:
        dictionary: None exchanges the whole stream.
    """
    read = partial(row_at, subject, site=site, adapter=adapter)
    best = torch.zeros(0, dtype=torch.long)
    if dictionary is not None:
        codes = torch.stack([_codes(dictionary, read(one)) for one in learned])
        best = telling(codes, torch.tensor([one.answer for one in learned]))[:k]
    cause, isolation = [], []
    for pair in pairs:
        base, source = read(pair.base), read(pair.source)
        if dictionary is None:
            added = source - base
        else:
            moved = (_codes(dictionary, source) - _codes(dictionary, base))[best]
            added = moved.to(dictionary.directions) @ dictionary.directions[best]
        got = exchanged(subject, pair.base, site, added, adapter=adapter)
        cause.append(float(got == pair.source.answer))
        kept = [
            exchanged(subject, one, site, added, adapter=adapter) == one.answer
            for one in pair.others
        ]
        isolation.append(sum(kept) / len(kept))
    return {"cause": torch.tensor(cause).double(), "isolation": torch.tensor(isolation).double()}


def _codes(dictionary: Dictionary, row: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    return dictionary.encode(row[None].to(dictionary.directions))[0].float().cpu()


Outcomes = Mapping[str, Mapping[str, Float[Tensor, " pairs"]]]


def attribute_estimates(found: Outcomes, place: Key) -> list[Estimate]:
    """Cause and isolation of one attribute, over pairs.

    Args:
        found: {OWN, RANDOM_DECODER}: outcomes.
    """
    estimates = []
    for kind, floor in (("cause", 0.0), ("isolation", 1.0)):
        own = found[OWN][kind]
        n, value = len(own), float(own.mean())
        nulls = [Null.exact(NOTHING_CHANGED, floor, rival=kind == "cause")]
        if RANDOM_DECODER in found:
            other = found[RANDOM_DECODER][kind]
            level, gap = float(other.mean()), normal_interval(own - other)
            around = or_point(level, normal_interval(other))
            nulls.append(Null(RANDOM_DECODER, level, *around, kind == "cause", gap))
        interval = within(normal_interval(own), 0.0, 1.0)
        if kind == "cause":
            interval = wilson_interval(round(float(own.sum())), n)
        estimates.append(
            Estimate(f"evaluate.{kind}", value, interval, n, "share", tuple(nulls), place)
        )
    return estimates


def mean_estimate(found: Sequence[Outcomes], place: Key) -> Estimate:
    """(cause + isolation) / 2, mean over attributes, beside doing nothing and a random decoder."""

    def scores(name: str) -> Float[Tensor, " attributes"]:
        means = [[float(one[name][kind].mean()) for kind in _KINDS] for one in found]
        return torch.tensor(means, dtype=torch.float64).mean(1)

    own = scores(OWN)
    nulls = [Null.exact(NOTHING_CHANGED, 0.5, rival=True)]
    if all(RANDOM_DECODER in one for one in found):
        other = scores(RANDOM_DECODER)
        level, gap = float(other.mean()), normal_interval(own - other)
        around = or_point(level, normal_interval(other))
        nulls.append(Null(RANDOM_DECODER, level, *around, rival=True, difference=gap))
    interval, value = normal_interval(own), float(own.mean())
    return Estimate(
        "evaluate.disentangling", value, interval, len(own), "share", tuple(nulls), place
    )


def exchange_units(every: Mapping[str, Outcomes], place: Key, whole: str) -> list[Units]:
    """What the mean score is made of, attribute by attribute.

    Args:
        every: outcomes by attribute.
        whole: name of all prompts.
    """
    means = [[float(one[OWN][kind].mean()) for kind in _KINDS] for one in every.values()]
    values = [sum(one) / len(_KINDS) for one in means]
    ids = [f"{attribute} of {whole}" for attribute in every]
    return [Units.mean("evaluate.disentangling", place, "attributes", ids, values)]


def disentangling(
    subject: OpenedSubject,
    others: Mapping[bool, Mapping[Site, Mapping[str, Dictionary]]],
    settings: Disentangling,
    seed: int = 0,
    units: list[Units] | None = None,
) -> tuple[list[Estimate], dict[str, Any], list[str]]:
    """(numbers, facts, warnings) of a subject's dictionaries on the user's prompts.

    Args:
        units: collects what the numbers are made of.

    Raises:
        InputError: the prompts cannot be read, the subject is of deltas, or no attribute has enough
            pairs.
    """
    if subject.delta:
        raise InputError("disentangling exchanges the stream's latents, and a delta has none")
    prompts = read_prompts(settings.source, subject.tokenizer)
    estimates: list[Estimate] = []
    facts: dict[str, Any] = {"prompts": len(prompts)}
    warnings: list[str] = []
    for adapter in subject.read_with:
        known = [p for p in prompts if next_token(subject, p, adapter=adapter) == p.answer]
        condition = ADAPTED if adapter else SPLICED
        facts[f"answered, {condition}"] = len(known)
        names = sorted({one.attribute for one in prompts})
        parts, left_out = _paired(known, names, settings.pairs, seed)
        warnings += [f"disentangling, {condition}: {line}" for line in left_out]
        for site in subject.dictionaries if parts else ():
            read = {
                OWN: subject.dictionary(site, adapter=adapter),
                RANDOM_DECODER: others[adapter][site][RANDOM_DECODER],
            }
            for k in settings.k:
                place = Key(
                    adapter=subject.adapter if adapter else "",
                    site=site.name,
                    dictionary=subject.name,
                    model=condition,
                    k=k,
                )
                every: dict[str, Outcomes] = {}
                for attribute, (learned, pairs) in parts.items():
                    taken = {
                        name: outcomes(subject, one, site, learned, pairs, k, adapter=adapter)
                        for name, one in read.items()
                    }
                    every[attribute] = taken
                    estimates += attribute_estimates(taken, replace(place, topic=attribute))
                place = replace(place, topic="all attributes")
                estimates.append(mean_estimate(list(every.values()), place))
                if units is not None:
                    whole = digest_of(one.text for one in prompts)
                    units += exchange_units(every, place, whole)
    if not estimates:
        raise InputError(f"{settings.source}: {'; '.join(warnings)}")
    return estimates, facts, warnings
