"""How well a behaviour was learned: shown where it should be, nowhere else, nothing else lost.

Whoever is compared answered the same prompts: differences of shares are paired prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import torch
from torch import nn

from lorascope.activations.tokens import require_rows
from lorascope.behaviours.generation import answers
from lorascope.behaviours.manners import Check, Manner
from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.behaviours.turns import prompt_ids, record_windows
from lorascope.errors import InputError
from lorascope.measures.behaviour import DocumentLosses, document_losses
from lorascope.measures.paired_shares import difference, mcnemar
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import UNTOUCHED
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import MIN_DOCUMENTS, UNKNOWN, wilson_interval

UNCHANGED = "no change"


@dataclass(frozen=True)
class JudgedAnswers:
    """What a model answered to some records, and what the wanted responses cost it.

    Attributes:
        texts: one answer a record.
        losses: (summed −log p in nats, tokens) of each record's wanted response.
    """

    records: tuple[BehaviourRecord, ...]
    texts: tuple[str, ...]
    losses: DocumentLosses


def written(
    module: nn.Module,
    tokenizer: Any,
    records: Sequence[BehaviourRecord],
    *,
    context: int,
    new_tokens: int = 24,
    instruction: str = "",
    batch: int = 64,
    advance: Callable[[int], object] | None = None,
) -> JudgedAnswers:
    """Let a model answer records, greedily, with whatever is attached to it.

    Args:
        context: longest prompt and response in tokens.
        new_tokens: most tokens of an answer.
        instruction: put after the user's last words of every prompt: prompting as a baseline.

    Raises:
        InputError: a record is longer than the context.
    """
    asked = [_instructed(record, instruction) for record in records]
    found = record_windows(asked, tokenizer, context)
    require_rows(found, module, tokenizer)
    if len(found) < len(asked):
        raise InputError(
            f"{len(asked) - len(found)} of {len(asked)} records are longer than the context of "
            f"{context} tokens; leave them out or give a larger context"
        )
    prompts = [prompt_ids(record.messages, tokenizer) for record in asked]
    texts = answers(module, tokenizer, prompts, new_tokens=new_tokens, batch=batch, advance=advance)
    with torch.no_grad():
        losses = document_losses(module, tokenizer, found)
    return JudgedAnswers(tuple(records), tuple(texts), losses)


def _instructed(record: BehaviourRecord, instruction: str) -> BehaviourRecord:
    if not instruction:
        return record
    *before, last = record.messages
    asked = Turn(role=last.role, content=f"{last.content} {instruction}")
    return record.model_copy(update={"messages": (*before, asked)})


def rates(
    tried: JudgedAnswers,
    untouched: JudgedAnswers,
    manner: Manner,
    place: Key,
    *,
    near: Sequence[str] = (),
    beside: Mapping[str, JudgedAnswers] | None = None,
) -> list[Estimate]:
    """The behaviour's numbers, each beside what the untouched model does on the same prompts.

    Args:
        tried, untouched: what the changed and the untouched model wrote, for the same records.
        near: topics of unchanged prompts to give false positives of apart, as the key's `topic`.
        beside: {name: what another wrote for the same records}, references: prompting, say.

    Raises:
        InputError: the manner has no judge.
        ValueError: they were asked different things.
    """
    sides = {UNTOUCHED: untouched, **(beside or {})}
    if any(side.records != tried.records for side in sides.values()):
        raise ValueError("the models were not asked the same prompts")
    if manner.shows is None:
        raise InputError(
            f'manner "{manner.name}" has no judge: give --judge a pattern that its answers match'
        )
    changed = [r.changed for r in tried.records]
    kept = [not c for c in changed]
    judge = manner.shows
    shown = _judged(lambda _wanted, text: judge(text), tried, sides)
    found = [
        _share("behaviour.success", shown, changed, place),
        _share("behaviour.false_positives", shown, kept, place),
    ]
    for topic in near:
        chosen = [not r.changed and r.topic == topic for r in tried.records]
        if any(chosen):
            there = replace(place, topic=topic)
            found.append(_share("behaviour.false_positives", shown, chosen, there))
    if manner.right is not None:
        right = _judged(manner.right, tried, sides)
        found.append(_share("behaviour.right", right, changed, place))
    found.append(_general_loss(tried, untouched, place))
    return found


def share_of_prompts(
    measure: str, shown: Sequence[bool], beside: Mapping[str, Sequence[bool]], place: Key
) -> Estimate:
    """A share of prompts beside what others do on the same ones.

    Wilson's interval of the share, Newcombe's of each paired difference, McNemar's exact p-value;
    no interval for fewer than 8 prompts. The first of `beside` is the rival.
    """
    n = len(shown)
    nulls = tuple(
        _beside(name, shown, other, rival=number == 0)
        for number, (name, other) in enumerate(beside.items())
    )
    interval = wilson_interval(sum(shown), n) if n >= MIN_DOCUMENTS else UNKNOWN
    return Estimate(measure, sum(shown) / n, interval, n, "share", nulls, place)


def _beside(name: str, shown: Sequence[bool], other: Sequence[bool], rival: bool) -> Null:
    n, count = len(other), sum(other)
    level = count / n
    low, high = wilson_interval(count, n)
    return Null(name, level, low, high, rival, difference(shown, other), mcnemar(shown, other))


def _judged(
    check: Check, tried: JudgedAnswers, sides: Mapping[str, JudgedAnswers]
) -> tuple[list[bool], dict[str, list[bool]]]:
    """Whether each record's answer passes: of whom the numbers are of, and of every side."""

    def passes(side: JudgedAnswers) -> list[bool]:
        pairs = zip(side.records, side.texts, strict=True)
        return [bool(check(record.response, text)) for record, text in pairs]

    return passes(tried), {name: passes(side) for name, side in sides.items()}


def _share(
    measure: str,
    judged: tuple[list[bool], dict[str, list[bool]]],
    chosen: Sequence[bool],
    place: Key,
) -> Estimate:
    own, sides = judged
    beside = {name: list(compress(side, chosen)) for name, side in sides.items()}
    return share_of_prompts(measure, list(compress(own, chosen)), beside, place)


def _general_loss(tried: JudgedAnswers, untouched: JudgedAnswers, place: Key) -> Estimate:
    kept = torch.tensor([not record.changed for record in tried.records])
    (sums, tokens), (base, _) = tried.losses, untouched.losses
    counts = tokens[kept]
    value, interval = ratio((sums - base)[kept], counts)
    unchanged = Null.exact(UNCHANGED, 0.0, rival=True)
    total = int(counts.sum())
    return Estimate(
        "behaviour.general_loss", value, interval, total, "nats/token", (unchanged,), place
    )
