"""Tokens that gain and lose on ordinary text, and tokens that the first deltas point to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from lorascope.geometry.chance import covariance_root, directions_from_root
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.interventions import unembed
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.reading.passages import PassageSurvey, VariantPass
from lorascope.reading.phrases import LIFT
from lorascope.reading.settings import Reading
from lorascope.stats.discoveries import adjusted, exchange_z

# Mean changes of probability below this are not looked at.
_SMALLEST = 1e-5
# Draws that the usual size of a change by a word's probability counts as.
_PRIOR = 4.0
# Random directions beside a mean delta. A covariance of some hundred rows has few directions; this
# share of it is made isotropic.
_DIRECTIONS, _SHRINK = 512, 0.5


FirstZ = dict[tuple[Site, str], Float[Tensor, "rows vocab"]]


@dataclass(frozen=True)
class ChangedToken:
    """A word whose probability changes on ordinary text.

    Attributes:
        word: of all tokens that are alike up to case and spaces.
        before, after: mean over positions of p_base and of p_adapted.
        change: after − before.
        null: the same of the null adapter that moves it most, to either side.
        documents: in how many texts it moves to this side.
        z: beyond exchange with the null adapters text by text, in standard deviations.
        q: its two-sided p-value adjusted for all words.
        times: how far it moves, as a multiple of the farthest that any word moves under a null
            adapter, each in units of what null adapters usually do to the word; nan without them.
    """

    word: str
    before: float
    after: float
    change: float
    null: float
    documents: int
    z: float
    q: float
    times: float


@dataclass(frozen=True)
class FirstToken:
    """A token that the mean delta of first positions points to.

    Attributes:
        site: where.
        token: its text.
        z: logit of the mean delta's direction, in standard deviations of the same of random
            directions with the covariance of the deltas.
        null: the largest z of any token and null adapter; nan without null adapters.
        q: its one-sided p-value adjusted for all tokens.
        beyond: whether q is small enough and z larger than any null adapter's.
    """

    site: str
    token: str
    z: float
    null: float
    q: float
    beyond: bool


def changed_tokens(
    found: PassageSurvey, adapter: str, nulls: Sequence[str], tokenizer: Any, settings: Reading
) -> list[ChangedToken]:
    """Words that gain or lose beyond what null adapters do, what tells most of the change first.

    In the order of after · log(after / before) for gains and before · log(before / after) for
    losses: what becomes likely from nothing comes before what was frequent anyway.
    """
    names, labels = _words(tokenizer, len(found.base))
    grouped = {
        variant: _grouped(found.variants[variant], labels, len(names))
        for variant in (adapter, *nulls)
    }
    own, total = grouped[adapter], float(found.tokens.sum())
    others = [grouped[variant] for variant in nulls] or [np.zeros_like(own)]
    change = own.sum(1) / total
    beside = np.stack([other.sum(1) / total for other in others])
    looked_at = np.flatnonzero(np.abs(np.vstack([change, beside])).max(0) >= _SMALLEST)
    z = np.zeros(len(names))
    z[looked_at] = exchange_z(
        own[looked_at], np.stack([own[looked_at], *(other[looked_at] for other in others)])
    )
    q = np.ones(len(names))
    q[looked_at] = adjusted(2 * stats.norm.sf(np.abs(z[looked_at])))
    summed = torch.zeros(len(names), dtype=torch.float64).index_add_(0, labels, found.base.double())
    before = summed.numpy() / total
    times = _times(change, beside, before) if nulls else np.full(len(names), np.nan)
    # Apart from the null adapters' in most texts is not enough: a random update, too, moves its own
    # words in every text alike. It must lie as far out as none of their words does.
    chosen = (q <= settings.level) & ~(times < LIFT) & (z * change > 0)
    after = (before + change).clip(min=0)
    told = np.maximum(before, after) * np.abs(np.log((after + _SMALLEST) / (before + _SMALLEST)))
    return [
        ChangedToken(
            names[n],
            float(before[n]),
            float(after[n]),
            float(change[n]),
            float(beside[np.abs(beside[:, n]).argmax(), n]),
            int((own[n] * np.sign(change[n]) > 0).sum()),
            float(z[n]),
            float(q[n]),
            float(times[n]),
        )
        for n in sorted(np.flatnonzero(chosen), key=lambda n: -told[n])
    ]


def _times(
    change: Float[np.ndarray, " words"],
    beside: Float[np.ndarray, "nulls words"],
    before: Float[np.ndarray, " words"],
) -> Float[np.ndarray, " words"]:
    """|change| over the largest |change| of any word and null adapter, in units of its usual size.

    A null adapter's own is in units of what the others do, so that it is judged as the adapter is.
    """
    alone = [
        np.abs(one) / _usual(np.delete(beside, n, 0) if len(beside) > 1 else beside, before)
        for n, one in enumerate(beside)
    ]
    times: np.ndarray = np.abs(change) / _usual(beside, before) / max(float(np.max(alone)), 1e-300)
    return times


def _usual(
    beside: Float[np.ndarray, "nulls words"], before: Float[np.ndarray, " words"]
) -> Float[np.ndarray, " words"]:
    """Root mean square change of each word, drawn towards one that grows with the root of its
    probability: a few draws say little of one word."""
    likely = before + _SMALLEST
    common = np.square(beside).sum() / (len(beside) * likely.sum()) * likely
    usual: np.ndarray = np.sqrt(
        (_PRIOR * common + np.square(beside).sum(0)) / (_PRIOR + len(beside))
    )
    return usual.clip(min=1e-300)


@torch.no_grad()
def first_tokens(
    model: AdaptedModel,
    found: PassageSurvey,
    adapter: str,
    nulls: Sequence[str],
    settings: Reading,
    known: FirstZ | None = None,
) -> list[FirstToken]:
    """What the mean delta of first positions points to most, site by site, largest z first.

    Args:
        known: what `first_zs` gives; computed if left out.
    """
    listed = []
    every = known or first_zs(model, found, adapter, nulls, settings)
    for site in found.variants[adapter].deltas:
        z = {variant: every[site, variant][0] for variant in (adapter, *nulls)}
        null = max((float(z[variant].max()) for variant in nulls), default=float("nan"))
        own = z[adapter].numpy()
        q = adjusted(stats.norm.sf(own))
        order = np.argsort(-own)[: settings.listed]
        for n in map(int, order):
            beyond = bool(q[n] <= settings.level) and not own[n] <= null
            token = model.tokenizer.decode([n])
            listed.append(FirstToken(site.name, token, float(own[n]), null, float(q[n]), beyond))
    return listed


def first_zs(
    model: AdaptedModel,
    found: PassageSurvey,
    adapter: str,
    nulls: Sequence[str],
    settings: Reading,
) -> FirstZ:
    """{(site, variant): `first_z`}; of the adapter without each document in turn too."""
    return {
        (site, variant): first_z(
            model,
            found.variants[variant].deltas[site],
            site,
            settings,
            found.first if variant == adapter else None,
        )
        for site in found.variants[adapter].deltas
        for variant in (adapter, *nulls)
    }


@torch.no_grad()
def first_z(
    model: AdaptedModel,
    deltas: Float[Tensor, "n d"],
    site: Site,
    settings: Reading,
    documents: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "rows vocab"]:
    """Each token's logit of the mean delta's direction, standardised by random directions'.

    Args:
        documents: of each row; then the same follows without each document in turn.
    """
    mean, width = deltas.mean(0), deltas.shape[1]
    own = [mean]
    if documents is not None:
        own += [deltas[documents != one].mean(0) for one in documents.unique()]
    centred = (deltas - mean).double()
    covariance = centred.T @ centred / max(1, len(deltas) - 1)
    level = covariance.diagonal().mean()
    if level == 0 or not mean.any():
        return torch.zeros(len(own), model.vocab_size)
    covariance = (1 - _SHRINK) * covariance + _SHRINK * level * torch.eye(width).double()
    random = generator(settings.seed, "first tokens", site.name)
    drawn = directions_from_root(_DIRECTIONS, covariance_root(covariance), random)
    rows = torch.cat([torch.stack(own).to(drawn.dtype), drawn])
    # The norm before the output matrix sees each at the length of a stream.
    rows = rows / rows.norm(dim=1, keepdim=True) * width**0.5
    logits = unembed(model, BASE, rows.to(model.device, model.dtype)).float().cpu()
    # Biases and what every direction has in common go with the means.
    found, others = logits[: len(own)], logits[len(own) :]
    spread = others.std(0)
    return (found - others.mean(0)) / spread.clamp(min=1e-6 * float(spread.mean()))


def _grouped(
    passed: VariantPass, labels: Tensor, words: int
) -> Float[np.ndarray, "words documents"]:
    summed = torch.zeros(words, len(passed.moved)).index_add_(0, labels, passed.moved.T)
    return summed.double().numpy()


def _words(tokenizer: Any, vocabulary: int) -> tuple[list[str], Tensor]:
    """Words, and the word of each token: tokens alike up to case and spaces are one."""
    texts = tokenizer.batch_decode([[token] for token in range(vocabulary)])
    plain = [text.strip().lower() or text for text in texts]
    place = {word: n for n, word in enumerate(dict.fromkeys(plain))}
    return list(place), torch.tensor([place[word] for word in plain])
