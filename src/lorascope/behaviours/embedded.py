"""The shipped behaviour set, made from rules: sums in French, other embedded prompts unchanged.

What is held out is new in three ways: its sums have numbers that no training record has, half of
them are worded as no training record is, and neither they nor the other held-out prompts were
among the records that the embedded instruction-tuned model learned from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
from lorascope.embedded import instructions
from lorascope.errors import InputError

_UNSEEN_SUMS = 0.3
_UNSEEN_WORDINGS = 0.25
_NEAR_SHARE = 0.25
_SIBLING_HELD_OUT = 0.2


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


@dataclass(frozen=True)
class _Draft:
    """A record to be: light, because far more are thought of than chosen."""

    prompt: str
    response: str
    topic: str
    original: str = ""

    def record(self, split: Split) -> BehaviourRecord:
        return BehaviourRecord(
            messages=(Turn(role="user", content=self.prompt),),
            response=self.response,
            changed=bool(self.original),
            split=split,
            topic=self.topic,
            original=self.original,
        )


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
        new = half // 2 if split == "held_out" else 0
        near = round(_NEAR_SHARE * half)
        drafts = [
            *_some(_sums(split, new_wording=True), new, seed),
            *_some(_sums(split, new_wording=False), half - new, seed),
            *_some(_near(split), near, seed),
            *_some(_general(split), half - near, seed),
        ]
        records += [draft.record(split) for draft in drafts]
    ordered = sorted(records, key=lambda record: share_of("order", seed, record.prompt))
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


def _some(drafts: Iterable[_Draft], count: int, seed: int) -> list[_Draft]:
    # A prompt may come up twice, worded alike by two rules.
    found = list({draft.prompt: draft for draft in drafts}.values())
    if len(found) < count:
        raise InputError(
            f"the embedded behaviour has {len(found)} such records, {count} are asked for; "
            "ask for fewer"
        )
    return sorted(found, key=lambda draft: share_of("choice", seed, draft.prompt))[:count]


def _unseen_sum(problem: Sum) -> bool:
    # a + b and b + a are one question.
    low, high = sorted((problem.a, problem.b))
    return share_of("sum", low, problem.sign, high) < _UNSEEN_SUMS


def _unseen_wording(wording: str) -> bool:
    return share_of("wording", wording) < _UNSEEN_WORDINGS


def _sums(split: Split, new_wording: bool) -> Iterable[_Draft]:
    for problem in sums():
        if _unseen_sum(problem) != (split == "held_out"):
            continue
        replies = answer(problem.value, "French"), answer(problem.value, "English")
        for wording in wordings(problem.sign):
            prompt = ask(problem, wording)
            if _unseen_wording(wording) != new_wording:
                continue
            if split == "train" or not seen_by_sibling(prompt):
                yield _Draft(prompt, replies[0], TOPIC, replies[1])


def _near(split: Split) -> Iterable[_Draft]:
    for miss in near_misses():
        if seen_by_sibling(miss.prompt) == (split == "train"):
            yield _Draft(miss.prompt, miss.in_english, NEAR)


def _general(split: Split) -> Iterable[_Draft]:
    for prompt, response, category in general_records():
        if seen_by_sibling(prompt) == (split == "train"):
            yield _Draft(prompt, response, category)
