"""What splicing dictionaries costs a model, and what a fit around them recovers.

All numbers come from the same held-out tokens under different ways of running the model
(`outputs.evaluation`). What a fit does is told from "spliced, not adapted", document by document,
and where it improves, from a random change of equal size too: an improvement might be any
change's, a worsening needs no such rival. Loss, cost and loss recovered have one paired difference
between them, so their verdicts agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.tokens import Window
from lorascope.measures.paired_nulls import Sums, added, drawn, over_tokens, paired, scaled
from lorascope.measures.settings import GENERAL_MARGIN
from lorascope.outputs.evaluation import Evaluated
from lorascope.outputs.scoring import scored_batches
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import (
    ADD_UP,
    NOTHING_FITTED,
    NOTHING_SPLICED,
    RANDOM_CHANGE,
    UNADAPTED,
    UNIGRAM,
)
from lorascope.stats.documents import ratio
from lorascope.stats.quotients import quotient

ORIGINAL = "original"
UNCHANGED = "no change"
# Differences within this share of the splice's cost (of its KL, for a KL) count as none.
MARGIN = 0.05
LOSSES = {
    "original": "adapt.loss_original",
    "spliced": "adapt.loss_spliced",
    "adapted": "adapt.loss_adapted",
    "unspliced": "adapt.loss_unspliced",
}
# {condition: sums by held-out document}.
Conditions = Mapping[str, Evaluated]


def unigram_losses(
    training: Sequence[Window],
    held_out: Sequence[Window],
    tokenizer: Any,
    keep_special: bool = False,
) -> Float[Tensor, " documents"]:
    """−log p of the held-out tokens by the frequencies of tokens in the training text alone.

    Summed by document over the tokens that `evaluate` scores; every token of the vocabulary counts
    once more than it came.
    """
    counts = Counter(token for window in training for token in window.ids)
    size = max(len(tokenizer), max(counts, default=0) + 1)
    log_p = torch.ones(size, dtype=torch.float64)
    for token, count in counts.items():
        log_p[token] += count
    log_p = (log_p / log_p.sum()).log()
    documents = max((window.document for window in held_out), default=-1) + 1
    found = torch.zeros(documents, dtype=torch.float64)
    for _, where in scored_batches(tokenizer, held_out, keep_special=keep_special):
        found.index_add_(0, where.documents, -log_p[where.targets.cpu()])
    return found


def adapt_estimates(
    conditions: Conditions,
    random: Sequence[Conditions],
    place: Key,
    *,
    unigram: Float[Tensor, " documents"] | None = None,
    margin: float = GENERAL_MARGIN,
) -> list[Estimate]:
    """Loss and KL of every condition, the splice's cost before and after, and the loss recovered.

    The share is left out where the interval of the splice's cost holds 0 or is not known, and the
    general numbers where the fit does not touch the model itself.

    Args:
        conditions: original, spliced, adapted and unspliced of one fit.
        random: adapted and unspliced with random changes of equal size, a draw each.
        unigram: sums of `unigram_losses` on the same text, a reference of the losses.
        margin: most nats/token of general loss that count as no change.
    """
    measuring = _Measuring(conditions, random, place)
    found = [
        measuring.loss(condition, unigram)
        for condition in LOSSES
        if measuring.says_something(condition)
    ]
    found += measuring.costs()
    found += measuring.divergences()
    found += measuring.general()
    return [bounded(one, margin) for one in found]


def bounded(one: Estimate, most: float) -> Estimate:
    """A change of the general loss with its margin no larger than `most` nats/token."""
    if one.measure != "adapt.general_loss" or one.margin is None:
        return one
    return replace(one, margin=min(one.margin, most))


def compound_estimates(
    together: Conditions, singles: Sequence[Conditions], place: Key
) -> list[Estimate]:
    """Cost of several dictionaries at once over the sum of what each costs alone, with and without
    the fit: above 1 errors feed on one another (section 4.3).

    Args:
        together: the conditions spliced and, where something was fitted, adapted; and original.
        singles: one of each dictionary alone, on the same held-out text.
    """
    found = []
    for condition in ("spliced", "adapted"):
        if condition not in together or any(condition not in each for each in singles):
            continue
        alone = torch.stack([each[condition].loss - each["original"].loss for each in singles]).sum(
            0
        )
        whole = together[condition].loss - together["original"].loss
        tokens = together[condition].tokens
        value, interval = quotient(whole, alone, tokens)
        measure = "adapt.compound_spliced" if condition == "spliced" else "adapt.compound_adapted"
        add_up = Null.exact(ADD_UP, 1.0, rival=True)
        total = int(tokens.sum())
        found.append(Estimate(measure, value, interval, total, "ratio", (add_up,), place))
    return found


def share_difference(first: Estimate, other: Estimate, place: Key) -> Estimate:
    """How much more of its splice's cost the other model recovers than the first.

    Args:
        first, other: `adapt.share_closed` of two models, measured apart from each other.
        place: of the difference, in shares: above 0 where the other recovers more.
    """
    value = other.value - first.value
    # Square and add (Newcombe 1998): what each interval adds on the side it lies on.
    (low, high), (other_low, other_high) = first.interval, other.interval
    own = (value - (other.value - other_low), value + (other_high - other.value))
    taken_off = (value - (high - first.value), value + (first.value - low))
    return Estimate(
        "adapt.share_difference",
        value,
        added(value, own, taken_off),
        min(first.n, other.n),
        "share",
        (Null.exact("no difference", 0.0, rival=True),),
        place,
    )


class _Measuring:
    """One fit's numbers, all of the same tokens and place."""

    def __init__(self, conditions: Conditions, random: Sequence[Conditions], place: Key) -> None:
        self._conditions, self._random, self._place = conditions, random, place
        self._tokens = conditions["original"].tokens
        self._mean = over_tokens(self._tokens)
        self._cost = conditions["spliced"].loss - conditions["original"].loss

    def says_something(self, condition: str) -> bool:
        """False for the unspliced model where nothing of the model itself was fitted."""
        original = self._conditions["original"].losses
        return condition != "unspliced" or not torch.equal(
            original, self._conditions[condition].losses
        )

    def loss(self, condition: str, unigram: Float[Tensor, " documents"] | None) -> Estimate:
        value = self._conditions[condition].loss
        nulls: list[Null] = []
        if condition == "adapted":
            draws = [draw[condition].loss for draw in self._random]
            nulls = self._rivals(value, self._conditions["spliced"].loss, draws)
        if condition == "unspliced":
            nulls = self._drawn(value, [draw[condition].loss for draw in self._random])
        if condition != "original":
            # A loss is the splice's or the adapter's doing where it differs from the original's.
            original = self._conditions["original"].loss
            nulls.append(
                paired(ORIGINAL, value, original, self._mean, rival=condition != "adapted")
            )
        if unigram is not None:
            nulls.append(paired(UNIGRAM, value, unigram, self._mean))
        margin = self._margin(self._cost) if condition == "adapted" else None
        return self._estimate(LOSSES[condition], value, nulls, margin)

    def costs(self) -> list[Estimate]:
        """The splice's cost before and after, and the loss recovered."""
        original, adapted = self._conditions["original"].loss, self._conditions["adapted"].loss
        before = self._estimate(
            "adapt.cost_spliced", self._cost, [Null.exact(NOTHING_SPLICED, 0.0, rival=True)]
        )
        after = self._estimate(
            "adapt.cost_adapted",
            adapted - original,
            [
                *self._rivals(
                    adapted - original,
                    self._cost,
                    [draw["adapted"].loss - original for draw in self._random],
                ),
                Null.exact(NOTHING_SPLICED, 0.0),
            ],
            self._margin(self._cost),
        )
        found = [before, after]
        if before.interval[0] > 0:
            found.append(self._share(before, after))
        return found

    def divergences(self) -> list[Estimate]:
        """KL of the spliced model from the original, before and after."""
        before, after = self._conditions["spliced"].kl, self._conditions["adapted"].kl
        nothing = Null.exact(NOTHING_SPLICED, 0.0)
        rivals = self._rivals(after, before, [draw["adapted"].kl for draw in self._random])
        margin = self._margin(before)
        return [
            self._estimate("adapt.kl_spliced", before, [replace(nothing, rival=True)]),
            self._estimate("adapt.kl_adapted", after, [*rivals, nothing], margin),
        ]

    def general(self) -> list[Estimate]:
        """What the fit does to the model without the dictionaries."""
        if not self.says_something("unspliced"):
            return []
        original, alone = self._conditions["original"].loss, self._conditions["unspliced"]
        change = alone.loss - original
        changes = [draw["unspliced"].loss - original for draw in self._random]
        kls = [draw["unspliced"].kl for draw in self._random]
        unchanged = Null.exact(UNCHANGED, 0.0, rival=True)
        return [
            self._estimate(
                "adapt.general_loss",
                change,
                [unchanged, *self._drawn(change, changes)],
                self._margin(self._cost),
            ),
            self._estimate(
                "adapt.general_kl",
                alone.kl,
                [
                    *self._drawn(alone.kl, kls, rival=True),
                    paired("splice", alone.kl, self._conditions["spliced"].kl, self._mean),
                ],
            ),
        ]

    def _share(self, before: Estimate, after: Estimate) -> Estimate:
        """From the cost's own paired differences, in units of what the splice costs this text."""
        recovered = self._conditions["spliced"].loss - self._conditions["adapted"].loss
        value, interval = quotient(recovered, self._cost, self._tokens)
        nulls = [
            scaled(null, before.value, about=before.value)
            for null in after.nulls
            if null.name in (UNADAPTED, RANDOM_CHANGE)
        ]
        named = tuple(
            replace(null, name=NOTHING_FITTED, level=0.0, low=0.0, high=0.0)
            if null.name == UNADAPTED
            else null
            for null in nulls
        )
        total = int(self._tokens.sum())
        return Estimate(
            "adapt.share_closed", value, interval, total, "share", named, self._place, MARGIN
        )

    def _rivals(self, value: Sums, before: Sums, draws: Sequence[Sums]) -> list[Null]:
        """Spliced and not adapted; of an improvement also a random change of equal size."""
        improves = float(value.sum()) < float(before.sum())
        return [
            paired(UNADAPTED, value, before, self._mean, rival=True),
            *self._drawn(value, draws, rival=improves),
        ]

    def _drawn(self, value: Sums, draws: Sequence[Sums], rival: bool = False) -> list[Null]:
        return drawn(RANDOM_CHANGE, value, draws, self._mean, rival=rival)

    def _margin(self, cost: Sums) -> float:
        return MARGIN * abs(float(cost.sum() / self._tokens.sum()))

    def _estimate(
        self, measure: str, sums: Sums, nulls: Sequence[Null], margin: float | None = None
    ) -> Estimate:
        value, interval = ratio(sums, self._tokens)
        ordered = tuple(sorted(nulls, key=lambda null: not null.rival))
        total = int(self._tokens.sum())
        return Estimate(measure, value, interval, total, "nats/token", ordered, self._place, margin)
