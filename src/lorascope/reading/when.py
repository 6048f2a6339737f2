"""On which prompts the adapter acts: by kind, and by words they have in common.

How much it acts on a prompt is told by two numbers: the mean KL(adapted ‖ base) of the next tokens
along its own amplified continuation, as log of that over the null adapters' own (geometric mean);
and the share of its continuations that say what comes back. Prompts of one kind, or that hold a
word, are held against all others by the ranks of either (Mann and Whitney 1947), twice the smaller
p-value counts, and all kinds and words are adjusted together (Benjamini and Hochberg 1995). Each
null adapter is held against the others likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from lorascope.reading.decoding import Amplification
from lorascope.reading.phrases import phrases_of
from lorascope.reading.prompts import Prompt
from lorascope.stats.discoveries import adjusted

# A kind or a word stands at so many prompts at least, and is missing at as many; longest of words.
LEAST, _LONGEST = 3, 3
# KL below this, nats a token, counts as this.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Act:
    """How much an adapter acts on a prompt.

    Attributes:
        kl: mean KL(adapted ‖ base) along its amplified continuation, nats/token.
        nulls: the same of each null adapter.
        said: share of its continuations that hold a phrase that comes back.
        nulls_said: of each null adapter's, with what comes back of it.
    """

    prompt: str
    kind: str
    kl: float
    nulls: tuple[float, ...]
    said: float
    nulls_said: tuple[float, ...] = ()


@dataclass(frozen=True)
class Occasion:
    """Prompts of a kind, or that hold words, beside all others.

    Attributes:
        of: whether `name` is a kind of prompts or words in them.
        prompts: how many there are.
        kl, elsewhere: mean KL there and at the other prompts, nats/token.
        null: mean KL of null adapters there.
        said, said_elsewhere: mean share of continuations that hold a phrase that comes back.
        p, q: two-sided, by ranks of KL and of what is said; adjusted for all kinds and words.
    """

    name: str
    of: Literal["kind", "words"]
    prompts: int
    kl: float
    elsewhere: float
    null: float
    said: float
    said_elsewhere: float
    p: float
    q: float


class Acting:
    """Sums up, while `decode` goes on, how far each amplified variant is from the base."""

    def __init__(self, conditions: Sequence[Amplification], prompts: int) -> None:
        loud: dict[str, tuple[float, int]] = {}
        for column, one in enumerate(conditions):
            if one.held_against_base:
                loud[one.variant] = max(
                    loud.get(one.variant, (0.0, column)), (one.strength, column)
                )
        self._faces = {column: variant for variant, (_, column) in loud.items()}
        self._sums = {variant: torch.zeros(prompts) for variant in loud}
        self._steps = {variant: torch.zeros(prompts) for variant in loud}

    def __call__(
        self,
        column: int,
        own: Float[Tensor, "going vocab"],
        base: Float[Tensor, "going vocab"],
        going: Int[Tensor, " going"],
    ) -> None:
        """Add a step of one condition, of the prompts of these numbers, whose continuation goes
        on."""
        variant = self._faces.get(column)
        if variant is None:
            return
        ours, theirs = own.log_softmax(1), base.log_softmax(1)
        kl = (ours.exp() * (ours - theirs)).sum(1)
        self._sums[variant].index_add_(0, going, kl.cpu())
        self._steps[variant].index_add_(0, going, torch.ones(len(going)))

    @property
    def kl(self) -> dict[str, Float[Tensor, " prompts"]]:
        """{variant: mean KL of each prompt, nats/token}."""
        return {
            variant: self._sums[variant] / self._steps[variant].clamp(min=1)
            for variant in self._sums
        }


def acts(
    prompts: Sequence[Prompt],
    kl: Mapping[str, Tensor],
    adapter: str,
    nulls: Sequence[str],
    said: Mapping[str, Sequence[float]],
) -> list[Act]:
    """Every prompt's record; none where nothing was amplified.

    Args:
        said: {variant: share of its continuations that hold a phrase which comes back of it}.
    """
    if adapter not in kl:
        return []
    return [
        Act(
            *(prompt.text, prompt.kind, float(kl[adapter][n])),
            *(tuple(float(kl[null][n]) for null in nulls), said[adapter][n]),
            tuple(said[null][n] for null in nulls),
        )
        for n, prompt in enumerate(prompts)
    ]


def occasions(found: Sequence[Act], level: float) -> list[Occasion]:
    """Kinds of prompts, then words at whose prompts the adapter acts more, surest first.

    Every kind is told of; of words those at the level.
    """
    kl = np.array([[one.kl, *one.nulls] for one in found])
    said = np.array([one.said for one in found])
    return _occasions(found, kl, said, level) if len(found) else []


def null_occasions(found: Sequence[Act], level: float) -> list[int]:
    """How many kinds and words are apart at the level for each null adapter beside the others.

    The adapter is left out: where it acts, a null adapter beside it would seem not to.
    """
    kl = np.array([one.nulls for one in found])
    if not kl.size or kl.shape[1] < 2:
        return []
    counts = []
    for draw in range(kl.shape[1]):
        order = [draw, *(n for n in range(kl.shape[1]) if n != draw)]
        said = np.array([one.nulls_said[draw] for one in found])
        apart = _occasions(found, kl[:, order], said, level)
        counts.append(sum(one.q <= level for one in apart))
    return counts


def _occasions(
    found: Sequence[Act], kl: np.ndarray, said: np.ndarray, level: float
) -> list[Occasion]:
    groups = _groups(found)
    logs = np.log(np.maximum(kl, _SMALLEST))
    acting = logs[:, 0] - (logs[:, 1:].mean(1) if kl.shape[1] > 1 else 0.0)
    inside = [np.isin(np.arange(len(found)), rows) for _, _, rows in groups]
    p = np.array([min(1.0, 2 * min(_p(v[own], v[~own]) for v in (acting, said))) for own in inside])
    q = adjusted(p)
    listed = []
    for n, (of, name, _) in enumerate(groups):
        own = inside[n]
        one = Occasion(
            *(name, of, int(own.sum()), float(kl[own, 0].mean()), float(kl[~own, 0].mean())),
            float(kl[own, 1:].mean()) if kl.shape[1] > 1 else float("nan"),
            *(float(said[own].mean()), float(said[~own].mean()), float(p[n]), float(q[n])),
        )
        more = said[own].mean() > said[~own].mean() or acting[own].mean() > acting[~own].mean()
        if of == "kind" or (one.q <= level and more):
            listed.append(one)
    return sorted(listed, key=lambda one: (one.of, one.p, -one.kl))


def _p(own: np.ndarray, others: np.ndarray) -> float:
    if own.std() == 0 and others.std() == 0 and own.mean() == others.mean():
        return 1.0
    return float(stats.mannwhitneyu(own, others, alternative="two-sided").pvalue)


def _groups(
    found: Sequence[Act],
) -> list[tuple[Literal["kind", "words"], str, tuple[int, ...]]]:
    """Kinds and words with the prompts they have; words of the very same prompts are one."""
    kinds: dict[str, list[int]] = {}
    spoken: dict[tuple[str, ...], list[int]] = {}
    for n, one in enumerate(found):
        kinds.setdefault(one.kind, []).append(n)
        for phrase in phrases_of(one.prompt, _LONGEST):
            spoken.setdefault(phrase, []).append(n)
    groups: list[tuple[Literal["kind", "words"], str, tuple[int, ...]]] = [
        ("kind", name, tuple(rows)) for name, rows in kinds.items() if _enough(rows, found)
    ]
    alike: dict[tuple[int, ...], tuple[str, ...]] = {}
    for phrase, rows in sorted(spoken.items()):
        if _enough(rows, found):
            alike[tuple(rows)] = max(alike.get(tuple(rows), ()), phrase, key=len)
    return groups + [("words", " ".join(phrase), rows) for rows, phrase in alike.items()]


def _enough(rows: Sequence[int], found: Sequence[Act]) -> bool:
    return LEAST <= len(rows) <= len(found) - LEAST
