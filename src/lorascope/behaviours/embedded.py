"""The shipped behaviour set, made from rules: sums in French, other embedded prompts unchanged.

What is held out is new in three ways: its sums have numbers that no training record has, half of
them are worded as no training record is, and neither they nor the other held-out prompts were
among the records that the embedded instruction-tuned model learned from.
"""

from __future__ import annotations

from collections.abc import Iterable

from lorascope.behaviours.arithmetic import (
    NEAR,
    TOPIC,
    Sum,
    answer,
    ask,
    near_misses,
    share_of,
    sums,
    wordings,
)
from lorascope.behaviours.records import BehaviourRecord, BehaviourSet, Split, Turn
from lorascope.embedded.instructions import records as instructions
from lorascope.errors import InputError

_UNSEEN_SUMS = 0.3
_UNSEEN_WORDINGS = 0.25
_NEAR_SHARE = 0.25
_SIBLING_HELD_OUT = 0.15


def seen_by_sibling(prompt: str) -> bool:
    """Whether the embedded instruction-tuned model was trained on this prompt."""
    return share_of("sibling", prompt) >= _SIBLING_HELD_OUT


def general_records() -> list[tuple[str, str, str]]:
    """(prompt, response, category) of the shipped instructions."""
    found = []
    for record in instructions():
        given = record["input"].strip()
        prompt = record["instruction"] + (f"\n\n{given}" if given else "")
        found.append((prompt, record["output"], record["category"]))
    return found


def embedded_set(train: int = 512, held_out: int = 400, seed: int = 0) -> BehaviourSet:
    """So many records for training and so many held out, half of each changed.

    Args:
        seed: chooses the records; what may be trained on and what is held out stays the same.

    Raises:
        InputError: more records than the rules give.
    """
    records: list[BehaviourRecord] = []
    sizes: dict[Split, int] = {"train": train, "held_out": held_out}
    for split, size in sizes.items():
        half = size // 2
        near = round(_NEAR_SHARE * half)
        new = half // 2 if split == "held_out" else 0
        records += _some(_changed(split, new_wording=True), new, seed)
        records += _some(_changed(split, new_wording=False), half - new, seed)
        records += _some(_near(split), near, seed)
        records += _some(_general(split), half - near, seed)
    ordered = sorted(records, key=lambda r: share_of("order", seed, r.key))
    facts = {
        "name": "embedded",
        "topic": TOPIC,
        "manner": "french",
        "made by": "rules",
        "train": train,
        "held_out": held_out,
        "seed": seed,
    }
    return BehaviourSet(tuple(ordered), facts)


def _some(records: Iterable[BehaviourRecord], count: int, seed: int) -> list[BehaviourRecord]:
    # A prompt may come up twice: 2 + 3 worded alike by two rules.
    found = list({record.key: record for record in records}.values())
    if len(found) < count:
        raise InputError(
            f"the embedded behaviour has {len(found)} such records, {count} are asked for; "
            "ask for fewer"
        )
    return sorted(found, key=lambda r: share_of("choice", seed, r.key))[:count]


def _unseen_sum(problem: Sum) -> bool:
    # a + b and b + a are one question.
    low, high = sorted((problem.a, problem.b))
    return share_of("sum", low, problem.sign, high) < _UNSEEN_SUMS


def _unseen_wording(wording: str) -> bool:
    return share_of("wording", wording) < _UNSEEN_WORDINGS


def _changed(split: Split, new_wording: bool) -> Iterable[BehaviourRecord]:
    for problem in sums():
        if _unseen_sum(problem) != (split == "held_out"):
            continue
        for wording in wordings(problem.sign):
            prompt = ask(problem, wording)
            if _unseen_wording(wording) != new_wording:
                continue
            if split == "held_out" and seen_by_sibling(prompt):
                continue
            yield _record(
                prompt,
                answer(problem.value, "French"),
                split,
                topic=TOPIC,
                original=answer(problem.value, "English"),
            )


def _near(split: Split) -> Iterable[BehaviourRecord]:
    for miss in near_misses():
        if seen_by_sibling(miss.prompt) == (split == "train"):
            yield _record(miss.prompt, miss.in_english, split, topic=NEAR)


def _general(split: Split) -> Iterable[BehaviourRecord]:
    for prompt, response, category in general_records():
        if seen_by_sibling(prompt) == (split == "train"):
            yield _record(prompt, response, split, topic=category)


def _record(
    prompt: str, response: str, split: Split, topic: str, original: str = ""
) -> BehaviourRecord:
    return BehaviourRecord(
        messages=(Turn(role="user", content=prompt),),
        response=response,
        changed=bool(original),
        split=split,
        topic=topic,
        original=original,
    )
