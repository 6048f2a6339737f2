"""How well a behaviour was learned: shown where it should be, nowhere else, nothing else lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorascope.activations.tokens import require_rows
from lorascope.behaviours.generation import answers
from lorascope.behaviours.manners import Judge, Manner
from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.behaviours.turns import prompt_ids, record_windows
from lorascope.errors import InputError
from lorascope.measures.behaviour import DocumentLosses, document_losses
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import wilson_interval

_UNTOUCHED = "untouched model"


@dataclass(frozen=True)
class Written:
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
) -> Written:
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
    return Written(tuple(records), tuple(texts), losses)


def _instructed(record: BehaviourRecord, instruction: str) -> BehaviourRecord:
    if not instruction:
        return record
    *before, last = record.messages
    asked = Turn(role=last.role, content=f"{last.content} {instruction}")
    return record.model_copy(update={"messages": (*before, asked)})


def rates(
    tried: Written,
    untouched: Written,
    manner: Manner,
    place: Key,
    *,
    near: Sequence[str] = (),
) -> list[Estimate]:
    """The behaviour's numbers, each beside what the untouched model does on the same prompts.

    Args:
        tried, untouched: what the changed and the untouched model wrote, for the same records.
        near: topics of unchanged prompts to give false positives of apart, as `place.setting`.

    Raises:
        InputError: the manner has no judge.
        ValueError: the two were asked different things.
    """
    if tried.records != untouched.records:
        raise ValueError("the two models were not asked the same prompts")
    if manner.shows is None:
        raise InputError(
            f'manner "{manner.name}" has no judge: give --judge a pattern that its answers match'
        )
    changed = [r.changed for r in tried.records]
    kept = [not c for c in changed]
    found = [
        _share("behaviour.success", tried, untouched, manner.shows, changed, place),
        _share("behaviour.false_positives", tried, untouched, manner.shows, kept, place),
    ]
    for topic in near:
        chosen = [not r.changed and r.topic == topic for r in tried.records]
        if any(chosen):
            there = Key(**{**place.__dict__, "setting": topic})
            found.append(
                _share("behaviour.false_positives", tried, untouched, manner.shows, chosen, there)
            )
    if manner.right is not None:
        found.append(_right(tried, untouched, manner, place))
    found.append(_general_loss(tried, untouched, place))
    return found


def _share(
    measure: str,
    tried: Written,
    untouched: Written,
    judge: Judge,
    chosen: Sequence[bool],
    place: Key,
) -> Estimate:
    shown = [
        [judge(text) for text, use in zip(side.texts, chosen, strict=True) if use]
        for side in (tried, untouched)
    ]
    return _counted(measure, shown[0], shown[1], place)


def _right(tried: Written, untouched: Written, manner: Manner, place: Key) -> Estimate:
    assert manner.right is not None
    right = [
        [
            manner.right(record.response, text)
            for record, text in zip(side.records, side.texts, strict=True)
            if record.changed
        ]
        for side in (tried, untouched)
    ]
    return _counted("behaviour.right", right[0], right[1], place)


def _counted(
    measure: str, tried: Sequence[bool], untouched: Sequence[bool], place: Key
) -> Estimate:
    n = len(tried)
    before = Null(_UNTOUCHED, sum(untouched) / n, *wilson_interval(sum(untouched), n))
    interval = wilson_interval(sum(tried), n)
    return Estimate(measure, sum(tried) / n, interval, n, "share", (before,), place)


def _general_loss(tried: Written, untouched: Written, place: Key) -> Estimate:
    kept = torch.tensor([not record.changed for record in tried.records])
    (sums, tokens), (base, _) = tried.losses, untouched.losses
    change, counts = (sums - base)[kept], tokens[kept]
    mean, around = ratio(change, counts)
    return Estimate(
        "behaviour.general_loss",
        mean,
        around,
        int(counts.sum()),
        "nats/token",
        (Null.exact("no change", 0.0),),
        place,
    )
