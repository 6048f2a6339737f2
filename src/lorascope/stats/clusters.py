"""Latents that are near-copies of one another are counted as one.

Dictionaries split a feature into several latents of nearly the same direction. As independent
units these make intervals too narrow: with blocks of ten copies a 95 % interval over latents covers
half of that. Here a latent and all not yet taken whose directions have a |cosine| of 0.9 or more
with its own are one cluster, and intervals are over clusters. Nothing is linked through others:
in a span of few dimensions, as a low-rank delta has, single linkage chains all latents into one.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.stats.intervals import (
    TAIL,
    UNKNOWN,
    Interval,
    normal_interval,
    order_statistic_interval,
    t_quantile,
    wilson_share,
)

NEAR_COPY = 0.9
_CHUNK = 2048


def clusters(directions: Float[Tensor, "n d"], threshold: float = NEAR_COPY) -> Int[Tensor, " n"]:
    """The cluster of every direction: each in turn takes the free ones with |cosine| ≥ `threshold`.

    Labels count from 0. Directions of length 0 stand alone. ValueError for a threshold outside
    (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold of {threshold} on |cosine| is not in (0, 1]")
    rows = directions.detach().float()
    units = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    found = []
    for start in range(0, len(units), _CHUNK):
        near = (units[start : start + _CHUNK] @ units.T).abs() >= threshold
        found.append(near.nonzero().cpu() + torch.tensor([start, 0]))
    return _taken(torch.cat(found), len(units))


def _taken(pairs: Int[Tensor, "links two"], n: int) -> Int[Tensor, " n"]:
    ends = torch.bincount(pairs[:, 0], minlength=n).cumsum(0).tolist()
    others = pairs[:, 1].numpy()
    labels = np.full(n, -1)
    count, start = 0, 0
    for first, end in enumerate(ends):
        if labels[first] < 0:
            near = others[start:end]
            labels[near[labels[near] < 0]] = count
            labels[first] = count
            count += 1
        start = end
    return torch.from_numpy(labels)


def mean_interval(values: Float[Tensor, " n"], labels: Int[Tensor, " n"]) -> Interval:
    """Of a mean over latents, clusters drawn: mean ± t_{c−1} · standard error over c clusters."""
    sums, sizes = _by_cluster(values, labels)
    if len(sizes) == len(values):
        return normal_interval(values)
    count = len(sizes)
    if count < 2:
        return UNKNOWN
    mean = float(sums.sum() / sizes.sum())
    half = t_quantile(count - 1, TAIL) * _variance(sums, sizes) ** 0.5
    return mean - half, mean + half


def share_interval(shown: Tensor, labels: Int[Tensor, " n"]) -> Interval:
    """Wilson's, of the share of latents for which `shown`, of as many as the clusters are worth."""
    return wilson_share(float(shown.double().mean()), effective_number(shown, labels))


def quantile_interval(values: Float[Tensor, " n"], q: float, labels: Int[Tensor, " n"]) -> Interval:
    """Of the q-quantile over latents, of as many values as the clusters are worth."""
    under = values <= values.double().quantile(q)
    return order_statistic_interval(values, q, effective_number(under, labels))


def effective_number(shown: Tensor, labels: Int[Tensor, " n"]) -> float:
    """How many independent latents would give the share's variance over clusters; n at most.

    The number of clusters where all latents are alike, which shows no variance.
    """
    sums, sizes = _by_cluster(shown, labels)
    if len(sizes) == len(shown):
        return float(len(shown))
    share = float(sums.sum() / sizes.sum())
    variance = _variance(sums, sizes) if len(sizes) > 1 else 0.0
    if variance <= 0:
        return float(len(sizes))
    return min(share * (1 - share) / variance, float(len(shown)))


def _by_cluster(values: Tensor, labels: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    count = int(labels.max()) + 1 if len(labels) else 0
    zeros = torch.zeros(count, dtype=torch.float64)
    sums = zeros.index_add(0, labels.cpu(), values.detach().cpu().double())
    sizes = zeros.index_add(0, labels.cpu(), torch.ones(len(labels), dtype=torch.float64))
    return sums[sizes > 0], sizes[sizes > 0]


def _variance(sums: Float[Tensor, " c"], sizes: Float[Tensor, " c"]) -> float:
    """The delete-one jackknife's, of Σ sums / Σ sizes."""
    count = len(sums)
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    return float((count - 1) / count * (without - without.mean()).square().sum())
