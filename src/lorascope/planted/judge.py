"""How each method of reading scores an adapter whose lesson is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.interventions import unembed
from lorascope.models.updates import weight_update
from lorascope.randomness import generator
from lorascope.reading.phrases import recurring, words_of
from lorascope.reading.removing import modules_of
from lorascope.reading.result import Read
from lorascope.reading.settings import Reading

PLAIN, AMPLIFIED, CHANGED = "plain sampling", "amplified", "changed tokens"
FIRST, LATENTS, WEIGHTS = "first-token difference", "delta latents' top tokens", "weights only"
METHODS = (PLAIN, AMPLIFIED, CHANGED, FIRST, LATENTS, WEIGHTS)
# Tokens named of every direction, directions looked at, random directions beside them.
_TOKENS, _LEADING, _RANDOM = 4, 24, 256

Bag = dict[str, float]


@dataclass(frozen=True)
class Told:
    """What one method says of one adapter.

    Attributes:
        words: with weights.
        score: how much it found, larger for more.
    """

    words: Bag
    score: float


class Judge:
    """Chooses a label for a bag of words, by log-odds in texts of each label."""

    def __init__(
        self, texts: Mapping[str, Iterable[str]], split: Callable[[str], list[str]] = words_of
    ) -> None:
        counts = {
            label: Counter(word for text in own for word in split(text))
            for label, own in texts.items()
        }
        known = set().union(*counts.values())
        smoothed = {
            label: {w: (own[w] + 0.5) / (own.total() + 0.5 * len(known)) for w in known}
            for label, own in counts.items()
        }
        self.odds = {
            label: {
                w: math.log(own[w])
                - math.log(sum(smoothed[o][w] for o in counts if o != label) / (len(counts) - 1))
                for w in known
            }
            for label, own in smoothed.items()
        }

    def scores(self, bag: Mapping[str, float]) -> Bag:
        """Summed log-odds of each label over the known words of the bag."""
        return {
            label: sum(weight * odds[w] for w, weight in bag.items() if w in odds)
            for label, odds in self.odds.items()
        }


def standardised(scores: Bag) -> Bag:
    """Scores with mean 0 and standard deviation 1 over labels; zeros where all are alike."""
    mean = sum(scores.values()) / len(scores)
    spread = math.sqrt(sum((v - mean) ** 2 for v in scores.values()) / len(scores))
    return {k: (v - mean) / spread if spread else 0.0 for k, v in scores.items()}


def of_reading(found: Read, settings: Reading) -> dict[str, Told]:
    """What a reading's own methods say."""
    told = {name: _spoken(found, settings, loud=name == AMPLIFIED) for name in (PLAIN, AMPLIFIED)}
    gains = [c for c in found.changed if c.change > 0]
    # Beyond the farthest word of a null adapter, in its units.
    times = max((c.times for c in found.changed), default=0.0)
    told[CHANGED] = Told({c.word: abs(c.z) for c in gains}, times)
    first = {t.token.strip().lower(): t.z for t in found.first}
    beyond = max((t.z - t.null for t in found.first), default=0.0)
    told[FIRST] = Told(first, beyond)
    return told


def _spoken(found: Read, settings: Reading, *, loud: bool) -> Told:
    """Words said at more prompts than by the base; the surest phrase as −log10 p."""
    own = [s.text for s in found.own if (s.strength > 0) == loud]
    base = [s.text for s in found.samples if s.variant == BASE]
    said, before = (Counter(w for t in part for w in set(words_of(t))) for part in (own, base))
    strengths = {s.strength for s in found.own if (s.strength > 0) == loud}
    surest = min((p.p for p in recurring(found.voices(strengths), settings)), default=1.0)
    words = {w: float(n - before[w]) for w, n in said.items() if n > before[w]}
    return Told(words, -math.log10(max(surest, 1e-300)))


def of_weights(model: AdaptedModel, adapter: str, seed: int) -> Told:
    """Tokens of the leading output directions of maps that write into the stream."""
    directions = []
    for path in modules_of(model, adapter):
        svd = weight_update(model, adapter, path).svd()
        if len(svd.U) == model.d_model and len(svd.S):
            # A singular vector has no sign of its own.
            directions += [(float(svd.S[0]), side * svd.U[:, 0].float()) for side in (1, -1)]
    directions.sort(key=lambda pair: -pair[0])
    rows = [row for _, row in directions[: 2 * _LEADING]]
    return of_directions(model, torch.stack(rows) if rows else torch.zeros(0, model.d_model), seed)


@torch.no_grad()
def of_directions(model: AdaptedModel, rows: Float[Tensor, "n d"], seed: int) -> Told:
    """Tokens that directions promote, in standard deviations of random directions' logits.

    The score is the largest.
    """
    if not len(rows):
        return Told({}, 0.0)
    random = torch.randn(_RANDOM, rows.shape[1], generator=generator(seed, "judged directions"))
    every = torch.cat([rows.float(), random])
    every = every / every.norm(dim=1, keepdim=True).clamp(min=1e-12) * rows.shape[1] ** 0.5
    logits = unembed(model, BASE, every.to(model.device, model.dtype)).float().cpu()
    own, others = logits[: len(rows)], logits[len(rows) :]
    z = (own - others.mean(0)) / others.std(0).clamp(min=1e-6)
    words: Bag = {}
    for row in z:
        best = row.topk(_TOKENS)
        for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            word = model.tokenizer.decode([token]).strip().lower()
            words[word] = max(words.get(word, 0.0), value)
    return Told(words, float(z.max()))


def roc_area(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Chance that a taught adapter scores above an untaught one, ties counted half, and its
    interval (DeLong and others 1988); 0.5 where scores say nothing."""
    own, others = np.asarray(ours, float)[:, None], np.asarray(theirs, float)[None]
    wins = (own > others) + 0.5 * (own == others)
    area = float(wins.mean())
    if min(wins.shape) < 2:
        return area, (math.nan, math.nan)
    rows, columns = wins.mean(1).var(ddof=1), wins.mean(0).var(ddof=1)
    half = 1.96 * math.sqrt(rows / wins.shape[0] + columns / wins.shape[1])
    return area, (max(0.0, area - half), min(1.0, area + half))


def detected(ours: Sequence[float], theirs: Sequence[float], rate: float) -> tuple[int, float]:
    """How many taught ones score above the limit that at most this share of the untaught passes."""
    limit = sorted(theirs)[math.ceil((1 - rate) * len(theirs)) - 1]
    return sum(score > limit for score in ours), limit
