"""What splicing dictionaries costs a model, and what a fit around them wins back.

All numbers come from the same held-out tokens under different ways of running the model
(`adapt.evaluation`); intervals are over documents, differences paired.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.tokens import Window
from lorascope.adapt.evaluation import Evaluated, scored_batches
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval, or_point, prediction_interval

RANDOM = "random change of equal size"
UNADAPTED = "spliced, not adapted"
UNIGRAM = "unigram frequencies"
# A change of the general loss within this share of the splice's cost counts as none.
MARGIN = 0.05
LOSSES = {
    "original": "adapt.loss_original",
    "spliced": "adapt.loss_spliced",
    "adapted": "adapt.loss_adapted",
    "unspliced": "adapt.loss_unspliced",
}
HeldOut = Mapping[str, Evaluated]


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
    for _, where in scored_batches(tokenizer, held_out, keep_special):
        found.index_add_(0, where.documents, -log_p[where.targets.cpu()])
    return found


def adapt_estimates(
    held_out: HeldOut,
    random: Sequence[HeldOut],
    place: Key,
    *,
    unigram: Float[Tensor, " documents"] | None = None,
) -> list[Estimate]:
    """Loss and KL of every way, the splice's cost before and after the fit, and the share won back.

    The share is left out where the interval of the splice's cost holds 0, and the general numbers
    where the fit does not touch the model itself.

    Args:
        held_out: the ways original, spliced, adapted and unspliced of one fit.
        random: adapted and unspliced with random changes of equal size, a draw each.
        unigram: sums of `unigram_losses` on the same text, a reference of the losses.
    """
    measuring = _Measuring(held_out, random, place)
    found = [measuring.loss(way, unigram) for way in LOSSES if measuring.says_something(way)]
    found += measuring.costs()
    found += measuring.divergences()
    found += measuring.general()
    return found


def compound_estimates(together: HeldOut, singles: Sequence[HeldOut], place: Key) -> list[Estimate]:
    """Cost of several dictionaries at once over the sum of what each costs alone, with and without
    the fit: above 1 errors feed on one another (section 4.3).

    Args:
        together: the ways spliced and, where something was fitted, adapted; and original.
        singles: one of each dictionary alone, on the same held-out text.
    """
    found = []
    for way in ("spliced", "adapted"):
        if way not in together or any(way not in each for each in singles):
            continue
        alone = [each[way].loss - each["original"].loss for each in singles]
        whole = together[way].loss - together["original"].loss
        tokens = together[way].tokens
        measure = "adapt.compound_spliced" if way == "spliced" else "adapt.compound_adapted"
        found.append(
            Estimate(
                measure,
                *ratio(whole, torch.stack(alone).sum(0), tokens),
                int(tokens.sum()),
                "ratio",
                (Null.exact("costs add up", 1.0),),
                place,
            )
        )
    return found


def reference(name: str, value: float, interval: Interval) -> Null:
    """A measured number as a reference of another; it stands for its interval where it has none."""
    return Null(name, value, *or_point(value, interval))


def drawn_chance(
    name: str,
    draws: Sequence[HeldOut],
    way: str,
    measured: Callable[[Evaluated], tuple[float, Interval]],
) -> Null | None:
    """A null from draws: their mean, and the wider of documents and of the draws.

    None without draws.
    """
    if not draws:
        return None
    each = [measured(draw[way]) for draw in draws]
    levels = [value for value, _ in each]
    bounds = [interval for _, interval in each]
    if len(levels) > 1:
        bounds.append(prediction_interval(levels))
    level = sum(levels) / len(levels)
    known = [(low, high) for low, high in bounds if low <= high] or [(level, level)]
    return Null(name, level, min(low for low, _ in known), max(high for _, high in known))


def share_difference(first: Estimate, other: Estimate, place: Key) -> Estimate:
    """How much more of its splice's cost the other model wins back than the first.

    Args:
        first, other: `adapt.share_closed` of two models, measured apart from each other.
        place: of the difference, in shares: above 0 where the other wins back more.
    """
    value = other.value - first.value
    # Square and add (Newcombe 1998): what each interval adds on the side it lies on.
    (low, high), (other_low, other_high) = first.interval, other.interval
    down = math.hypot(other.value - other_low, high - first.value)
    up = math.hypot(other_high - other.value, first.value - low)
    return Estimate(
        "adapt.share_difference",
        value,
        (value - down, value + up),
        min(first.n, other.n),
        "share",
        (Null.exact("no difference", 0.0),),
        place,
    )


class _Measuring:
    """One fit's numbers, all with the same tokens, place and seed."""

    def __init__(self, held_out: HeldOut, random: Sequence[HeldOut], place: Key) -> None:
        self._ways, self._random, self._place = held_out, random, place
        self._tokens = held_out["original"].tokens
        self._cost = held_out["spliced"].loss - held_out["original"].loss

    def says_something(self, way: str) -> bool:
        """False for the unspliced model where nothing of the model itself was fitted."""
        original = self._ways["original"].losses
        return way != "unspliced" or not torch.equal(original, self._ways[way].losses)

    def loss(self, way: str, unigram: Float[Tensor, " documents"] | None) -> Estimate:
        chances = []
        if unigram is not None:
            chances.append(self._level(UNIGRAM, unigram))
        if way not in ("original", "unspliced"):
            chances.append(self._level("original", self._ways["original"].loss))
        if way == "adapted":
            chances.append(self._level(UNADAPTED, self._ways["spliced"].loss))
        if way in ("adapted", "unspliced"):
            chances += self._drawn(way, lambda one: one.loss)
        if way == "unspliced":
            chances.append(self._level("original", self._ways["original"].loss))
        return self._mean(LOSSES[way], self._ways[way].loss, chances)

    def costs(self) -> list[Estimate]:
        """The splice's cost before and after, and the share won back."""
        original, adapted = self._ways["original"].loss, self._ways["adapted"].loss
        nothing = Null.exact("nothing spliced", 0.0)
        after = [
            self._level(UNADAPTED, self._cost),
            *self._drawn("adapted", lambda one: one.loss - original),
            nothing,
        ]
        before = self._mean("adapt.cost_spliced", self._cost, [nothing])
        found = [before, self._mean("adapt.cost_adapted", adapted - original, after)]
        if not before.interval[0] <= 0:
            found.append(self._share())
        return found

    def divergences(self) -> list[Estimate]:
        """KL of the spliced model from the original, before and after."""
        before = self._ways["spliced"].kl
        nothing = Null.exact("nothing spliced", 0.0)
        after = [
            self._level(UNADAPTED, before),
            *self._drawn("adapted", lambda one: one.kl),
            nothing,
        ]
        return [
            self._mean("adapt.kl_spliced", before, [nothing]),
            self._mean("adapt.kl_adapted", self._ways["adapted"].kl, after),
        ]

    def general(self) -> list[Estimate]:
        """What the fit does to the model without the dictionaries."""
        if not self.says_something("unspliced"):
            return []
        original, alone = self._ways["original"], self._ways["unspliced"]
        margin = MARGIN * abs(self._over_tokens(self._cost)[0])
        loss = [
            Null("a twentieth of the splice's cost", 0.0, -margin, margin),
            *self._drawn("unspliced", lambda one: one.loss - original.loss),
        ]
        kl = [
            *self._drawn("unspliced", lambda one: one.kl),
            self._level("splice", self._ways["spliced"].kl),
        ]
        return [
            self._mean("adapt.general_loss", alone.loss - original.loss, loss),
            self._mean("adapt.general_kl", alone.kl, kl),
        ]

    def _share(self) -> Estimate:
        def closed(one: Evaluated) -> tuple[float, Interval]:
            won = self._ways["spliced"].loss - one.loss
            return ratio(won, self._cost, self._tokens)

        chances = [Null.exact("nothing fitted", 0.0)]
        drawn = drawn_chance(RANDOM, self._random, "adapted", closed)
        if drawn is not None:
            chances.append(drawn)
        chances.sort(key=lambda chance: chance.high, reverse=True)
        value, interval = closed(self._ways["adapted"])
        total = int(self._tokens.sum())
        return Estimate(
            "adapt.share_closed", value, interval, total, "share", tuple(chances), self._place
        )

    def _mean(
        self, measure: str, sums: Float[Tensor, " documents"], chances: Sequence[Null]
    ) -> Estimate:
        value, interval = self._over_tokens(sums)
        total = int(self._tokens.sum())
        return Estimate(measure, value, interval, total, "nats/token", tuple(chances), self._place)

    def _over_tokens(self, sums: Float[Tensor, " documents"]) -> tuple[float, Interval]:
        return ratio(sums, self._tokens)

    def _level(self, name: str, sums: Float[Tensor, " documents"]) -> Null:
        return reference(name, *self._over_tokens(sums))

    def _drawn(
        self, way: str, sums: Callable[[Evaluated], Float[Tensor, " documents"]]
    ) -> list[Null]:
        found = drawn_chance(RANDOM, self._random, way, lambda one: self._over_tokens(sums(one)))
        return [] if found is None else [found]
