"""Whether answers depend on what was asked, or one answer is given to everything.

A manner can be shown by a single sentence that answers nothing ("Cela fait sept." to every sum).
What tells is how many answers are distinct, how often the commonest is given, and how much an
answer tells of its prompt: prompts asked once each and answered greedily fix their answers, so that
the mutual information between prompt and answer is the entropy of the answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ONE_ANSWER, UNTOUCHED, WANTED
from lorascope.stats.intervals import (
    MIN_DOCUMENTS,
    UNKNOWN,
    jackknife_interval,
    wilson_interval,
    within,
)

# One answer of so large a share, and so little of the wanted answers' information: nearly constant.
_MOSTLY, _TOLD = 0.25, 0.75


@dataclass(frozen=True)
class Answers:
    """How alike some answers are.

    Attributes:
        n: answers.
        distinct: different ones.
        commonest: the one given most often, and `times` how often.
        bits: what an answer tells of its prompt.
    """

    n: int
    distinct: int
    commonest: str
    times: int
    bits: float

    @classmethod
    def of(cls, texts: Sequence[str]) -> Answers:
        """Counted with spaces evened out."""
        counts = Counter(map(_plain, texts))
        (text, times), *_ = counts.most_common(1) or [("", 0)]
        return cls(len(texts), len(counts), text, times, information(texts))

    def nearly_constant(self, wanted: Answers) -> bool:
        """Whether one answer makes up a quarter of all, and all tell less than three quarters of
        the bits about their prompts that the wanted ones do."""
        if self.n < MIN_DOCUMENTS:
            return False
        return self.times / self.n >= _MOSTLY and self.bits < _TOLD * wanted.bits


def information(texts: Sequence[str]) -> float:
    """Entropy of the answers, bits: what an answer tells of which prompt it was."""
    counts = Counter(map(_plain, texts)).values()
    return _entropy(list(counts), len(texts))


def constancy_estimates(
    texts: Sequence[str], untouched: Sequence[str], wanted: Sequence[str], place: Key
) -> list[Estimate]:
    """Distinct answers and information about the prompt, of answers to the same prompts.

    Args:
        texts: of whom the numbers are of; untouched: the bare model's; wanted: the records' own.

    Raises:
        ValueError: they answer different numbers of prompts, or none.
    """
    n = len(texts)
    if not n or {len(untouched), len(wanted)} != {n}:
        raise ValueError("give answers to the same prompts, at least one")
    sides: Mapping[str, Sequence[str]] = {UNTOUCHED: untouched, WANTED: wanted}
    distinct = len(set(map(_plain, texts)))
    once = Null.exact(ONE_ANSWER, 1 / n, rival=True)
    beside = [Null.exact(name, len(set(map(_plain, own))) / n) for name, own in sides.items()]
    around = wilson_interval(distinct, n) if n >= MIN_DOCUMENTS else UNKNOWN
    share = Estimate("behaviour.distinct", distinct / n, around, n, "share", (once, *beside), place)
    none = Null.exact(ONE_ANSWER, 0.0, rival=True)
    told = [Null.exact(name, information(own)) for name, own in sides.items()]
    value, interval = information(texts), _over_prompts(texts)
    return [
        share,
        Estimate("behaviour.information", value, interval, n, "bits", (none, *told), place),
    ]


def _over_prompts(texts: Sequence[str]) -> tuple[float, float]:
    """Delete-one-prompt jackknife, between 0 and what as many different answers would tell."""
    n = len(texts)
    if n < MIN_DOCUMENTS:
        return UNKNOWN
    plain = [_plain(text) for text in texts]
    counts = Counter(plain)
    by_count: dict[int, float] = {}
    for times in set(counts.values()):
        left = list(counts.values())
        left.remove(times)
        by_count[times] = _entropy([*left, times - 1], n - 1)
    without = [by_count[counts[text]] for text in plain]
    return within(jackknife_interval(_entropy(list(counts.values()), n), without), 0, math.log2(n))


def _entropy(counts: Sequence[int], total: int) -> float:
    shares = [count / total for count in counts if count]
    return -sum(share * math.log2(share) for share in shares) + 0.0


def _plain(text: str) -> str:
    return " ".join(text.split())
