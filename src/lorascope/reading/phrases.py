"""Phrases that come back: across prompts and strengths, beyond what null adapters bring back.

The unit is the prompt. A phrase's count at a prompt is how many of the continuations hold it. If
the adapter were one more null adapter, its continuations of a prompt and theirs could change
places, prompt by prompt; the p-value of the total is exact under that exchange. What cannot be
exchanged (the base's own continuations, another adapter's) speaks against a phrase only: where it
holds the phrase, it joins the group with the group's largest count, and where it does not it stays
out; and a phrase must be at least twice as frequent as in any of these.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.reading.settings import Reading
from lorascope.stats.discoveries import adjusted, exchange_p

# Continuations by prompt and condition.
Texts = Sequence[Sequence[str]]
Words = tuple[str, ...]

# Scripts without spaces: every character is a word. Then words, then runs of marks.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’][^\W_]+)*|[^\w\s\ufffd]+|_+")
# A phrase in at least this share of another's continuations goes with it.
_TOGETHER = 0.75
# What comes back comes back at so many prompts, and so many times as often as a null adapter's.
LEAST_PROMPTS = 3
LIFT = 2.0


@dataclass(frozen=True)
class Phrase:
    """What comes back.

    Attributes:
        text: words and marks with a space between any two.
        prompts: at how many prompts it stands in a continuation.
        total: in how many continuations.
        nulls: in how many of each null adapter's continuations.
        base: at how many prompts the base says it.
        p: exact, one-sided, by exchange with the null adapters prompt by prompt.
        q: p adjusted for all phrases (Benjamini and Hochberg 1995).
    """

    text: str
    prompts: int
    total: int
    nulls: tuple[int, ...]
    base: int
    p: float
    q: float


@dataclass(frozen=True)
class Voices:
    """Whose continuations are held against each other.

    Attributes:
        own: the adapter's.
        nulls: null adapters', each under the same conditions.
        base: the base's, one or more of each prompt.
        others: of other adapters for reference.
    """

    own: Texts
    nulls: tuple[Texts, ...]
    base: Texts
    others: tuple[Texts, ...] = ()

    def exchanged(self, draw: int) -> Voices:
        """With a null adapter in the adapter's place, and the adapter in its."""
        nulls = (*self.nulls[:draw], self.own, *self.nulls[draw + 1 :])
        return Voices(self.nulls[draw], nulls, self.base, self.others)

    @property
    def exchangeable(self) -> tuple[Texts, ...]:
        """What changes places with the adapter's: null adapters', or without any the base's."""
        if self.nulls:
            return self.nulls
        wide = len(self.own[0])
        return (tuple((*row, *([row[0]] * wide))[:wide] for row in self.base),)


def words_of(text: str) -> list[str]:
    """Words and runs of marks; in lower case, but for words of capitals alone."""
    found = _WORD.findall(text)
    return [w if len(w) > 1 and w.isupper() else w.lower() for w in found]


def phrases_of(text: str, longest: int) -> set[Words]:
    """All runs of 1 to `longest` words of a text, marks within them, and marks by themselves."""
    words = words_of(text)
    marks = [not any(map(str.isalnum, word)) for word in words]
    return {
        tuple(words[start : start + n])
        for n in range(1, longest + 1)
        for start in range(len(words) - n + 1)
        if n == 1 or not (marks[start] or marks[start + n - 1])
    }


def recurring(voices: Voices, settings: Reading) -> list[Phrase]:
    """Phrases of the adapter's that come back, what sets it apart most first."""
    spoken = [_counts(voice, settings.words) for voice in (voices.own, *voices.exchangeable)]
    against = [_counts(voice, settings.words) for voice in (voices.base, *voices.others)]
    anywhere = (set().union(*counts) for counts in zip(*spoken, strict=True))
    prompts = Counter(phrase for phrases in anywhere for phrase in phrases)
    # What could not come back, whoever had been the adapter, is no test.
    known = sorted(phrase for phrase, n in prompts.items() if n >= LEAST_PROMPTS)
    if not known:
        return []
    place = {phrase: n for n, phrase in enumerate(known)}
    group = np.stack([_table(voice, place) for voice in spoken])
    apart = np.stack([_table(voice, place) for voice in against])
    speaking = np.where(apart > 0, group.max(0), -1)
    p, least = exchange_p(group[0], np.concatenate([group, speaking]))
    q = _adjusted(p, least, np.concatenate([group, apart]), settings.level)
    totals, lifts = group[0].sum(1), _lifts(group, apart)
    chosen = (q <= settings.level) & ((group[0] > 0).sum(1) >= LEAST_PROMPTS) & (lifts >= LIFT)
    weight = totals * np.log(lifts)
    order = sorted(np.flatnonzero(chosen), key=lambda n: (-weight[n], known[n]))
    found = {known[n]: _Found(int(totals[n]), float(lifts[n])) for n in order}
    return [
        Phrase(
            " ".join(shown),
            int((group[0, n] > 0).sum()),
            int(totals[n]),
            tuple(int(count) for count in group[1:, n].sum(1)) if voices.nulls else (),
            int((apart[0, n] > 0).sum()),
            float(p[n]),
            float(q[n]),
        )
        for shown, n in ((shown, place[phrase]) for shown, phrase in _distinct(found))
    ]


def _adjusted(p: np.ndarray, least: np.ndarray, tables: np.ndarray, level: float) -> np.ndarray:
    """q-values. Phrases that stand in the very same continuations are one test; tests that could
    not have reached the level whoever had been the adapter are none."""
    _, first, same = np.unique(
        tables.transpose(1, 0, 2).reshape(len(p), -1),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    q = np.ones(len(first))
    testable = np.flatnonzero(least[first] <= level)
    q[testable] = adjusted(p[first][testable])
    spread: np.ndarray = q[same.reshape(-1)]
    return spread


def _lifts(group: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """How many times as often as a null adapter on average, or the base or another adapter.

    The least of these; half a continuation, or prompt, is added to either side.
    """
    totals, prompts = group.sum(2), (group[0] > 0).sum(1)
    beside = np.stack(
        [
            (totals[0] + 0.5) / (totals[1:].mean(0) + 0.5),
            *((prompts + 0.5) / ((other > 0).sum(1) + 0.5) for other in apart),
        ]
    )
    lifts: np.ndarray = beside.min(0)
    return lifts


def _counts(voice: Texts, longest: int) -> list[dict[Words, int]]:
    """Of each prompt: in how many of its continuations a phrase stands."""
    found = []
    for row in voice:
        counts: dict[Words, int] = {}
        for text in row:
            for phrase in phrases_of(text, longest):
                counts[phrase] = counts.get(phrase, 0) + 1
        found.append(counts)
    return found


def _table(voice: list[dict[Words, int]], place: dict[Words, int]) -> np.ndarray:
    table = np.zeros((len(place), len(voice)), dtype=np.int64)
    for unit, counts in enumerate(voice):
        for phrase, count in counts.items():
            if phrase in place:
                table[place[phrase], unit] = count
    return table


@dataclass(frozen=True)
class _Found:
    """In how many continuations a phrase stands, and how many times as often as a null's."""

    total: int
    lift: float


def _distinct(found: dict[Words, _Found]) -> list[tuple[Words, Words]]:
    """(as shown, as counted): without parts of longer phrases, runs of one sentence joined.

    A part goes where a longer phrase is nearly as frequent; a longer phrase goes where a part that
    stays sets the adapter apart nearly as well.
    """
    whole = {
        phrase: own
        for phrase, own in found.items()
        if not any(
            _inside(phrase, other) and theirs.total >= _TOGETHER * own.total
            for other, theirs in found.items()
        )
    }
    apart = {
        phrase: own
        for phrase, own in whole.items()
        if not any(
            _inside(other, phrase) and theirs.lift >= _TOGETHER * own.lift
            for other, theirs in whole.items()
        )
    }
    return _joined(apart)


def _inside(part: Words, whole: Words) -> bool:
    """Whether a phrase is part of a longer one."""
    n = len(part)
    return n < len(whole) and any(
        whole[start : start + n] == part for start in range(len(whole) - n + 1)
    )


def _joined(found: dict[Words, _Found]) -> list[tuple[Words, Words]]:
    """Phrases that are windows of one longer run, as one: "a b c" and "b c d" are "a b c d".

    The joined run is counted as the first of its windows.
    """
    order = {phrase: n for n, phrase in enumerate(found)}
    shown = [(phrase, phrase) for phrase in found]

    def join() -> bool:
        for first in shown:
            for second in shown:
                (left, counted), (right, other) = first, second
                overlap = min(len(counted), len(other)) - 1
                totals = sorted((found[counted].total, found[other].total))
                alike = totals[0] >= _TOGETHER * totals[1]
                if first is second or not overlap or not alike:
                    continue
                if left[-overlap:] == right[:overlap]:
                    at = min(shown.index(first), shown.index(second))
                    shown.remove(first)
                    shown.remove(second)
                    shown.insert(
                        at, (left + right[overlap:], min(counted, other, key=order.__getitem__))
                    )
                    return True
        return False

    while join():
        pass
    return shown
