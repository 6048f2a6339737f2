"""Chance levels: random factors of the same shapes, through their r × r cores.

A Gaussian [n, r] matrix is orthonormal columns times an upper triangle with independent entries:
normal above the diagonal, on it the root of a χ² of n, n − 1, … degrees (Bartlett 1933). Norms and
spectra of B · A are those of the product of two such triangles; the matrix is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lorascope.randomness import derived_seed

# For robust z-scores: the median absolute deviation of a normal law is 0.6745 of its deviation.
_MAD = 1.4826
_OUTLIER_DRAWS = 4999
# Fewer modules have no spread to stand out from.
LEAST = 5
_MOST_AT_ONCE, _SCORES_AT_ONCE = 2**22, 2**16


@dataclass(frozen=True)
class RandomFactors:
    """Draws of B · A with independent Gaussian entries of one shape.

    Attributes:
        alignment: ‖B·A‖_F / (‖B‖_F ‖A‖_F) of each draw.
        effective_rank, stable_rank: of each draw.
    """

    alignment: NDArray[np.float64]
    effective_rank: NDArray[np.float64]
    stable_rank: NDArray[np.float64]


def draws_for(r: int) -> int:
    """How many draws a rank gets: never fewer than 20."""
    return 64 if r <= 64 else 32 if r <= 128 else 20


@cache
def random_factors(out: int, r: int, width: int) -> RandomFactors:
    """The draws for a shape; they depend on it alone.

    Args:
        out, r, width: B is [out, r], A is [r, width].
    """
    random = np.random.default_rng(derived_seed(0, "factors of a shape", out, r, width))
    draws = draws_for(r)
    at_once = max(1, _MOST_AT_ONCE // (r * r))
    parts = [
        _drawn(random, (out, r, width), min(at_once, draws - done))
        for done in range(0, draws, at_once)
    ]
    return RandomFactors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _drawn(
    random: np.random.Generator, shape: tuple[int, int, int], draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    out, r, width = shape
    B, A = _triangles(random, out, r, draws), _triangles(random, width, r, draws)
    S = np.linalg.svd(B @ A.swapaxes(1, 2), compute_uv=False)
    norms = np.linalg.norm(S, axis=1)
    factors = np.linalg.norm(B, axis=(1, 2)) * np.linalg.norm(A, axis=(1, 2))
    shares = S / S.sum(1, keepdims=True)
    entropy = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(1)
    return norms / factors, np.exp(entropy), (norms / S[:, 0]) ** 2


def _triangles(random: np.random.Generator, n: int, r: int, draws: int) -> NDArray[np.float64]:
    k = min(n, r)
    found = np.triu(random.standard_normal((draws, k, r)), 1)
    diagonal = np.sqrt(random.chisquare(n - np.arange(k), (draws, k)))
    found[:, np.arange(k), np.arange(k)] = diagonal
    return found


@dataclass(frozen=True)
class Level:
    """A number under a null: its mean, and where 95 % of its values fall."""

    mean: float
    low: float
    high: float


def level_of_mean(draws: Sequence[NDArray[np.float64]]) -> Level:
    """Of the mean of one more draw from each of several laws, each known by draws.

    The variance of the mean is Σ s² / m², and that of its estimated level, where modules share a
    law, as large as those laws' draws are few; the quantile is Student's.
    """
    laws: dict[int, tuple[NDArray[np.float64], int]] = {}
    for one in draws:
        laws[id(one)] = (one, laws[id(one)][1] + 1 if id(one) in laws else 1)
    m = len(draws)
    mean = math.fsum(count * float(law.mean()) for law, count in laws.values()) / m
    variance = math.fsum(
        float(law.var(ddof=1)) * (count + count**2 / len(law)) for law, count in laws.values()
    )
    half = _half(math.sqrt(variance) / m, min(len(law) for law, _ in laws.values()))
    return Level(mean, mean - half, mean + half)


def level_of_norm(sizes: Sequence[float], draws: Sequence[NDArray[np.float64]]) -> Level:
    """Of √Σ (c_i a_i)², modules of factor norms c_i and alignments a_i drawn from their laws.

    The square's mean and deviation by their draws; the root's to first order.
    """
    laws: dict[int, tuple[NDArray[np.float64], float, float]] = {}
    for size, one in zip(sizes, draws, strict=True):
        _, once, squared = laws.get(id(one), (one, 0.0, 0.0))
        laws[id(one)] = (one, once + size**2, squared + size**4)
    mean = variance = 0.0
    for law, once, squared in laws.values():
        squares = law**2
        mean += once * float(squares.mean())
        variance += float(squares.var(ddof=1)) * (squared + once**2 / len(law))
    level = math.sqrt(mean)
    if level == 0:
        return Level(0.0, 0.0, 0.0)
    fewest = min(len(law) for law, _, _ in laws.values())
    half = _half(math.sqrt(variance) / (2 * level), fewest)
    return Level(level, max(0.0, level - half), level + half)


def _half(deviation: float, draws: int) -> float:
    return float(special.stdtrit(draws - 1, 0.975)) * deviation


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x − median) / (1.4826 · MAD) along the last axis; nan where the MAD is zero."""
    gaps = values - np.median(values, axis=-1, keepdims=True)
    spread = _MAD * np.median(np.abs(gaps), axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, gaps / spread, np.nan)


@cache
def largest_z(modules: int) -> NDArray[np.float64]:
    """Largest |robust z| of so many independent normal numbers, in sorted draws.

    Log norms of random factors of one shape and size are such numbers, to the order of one over
    the factors' entries; scale and place fall out of the score.
    """
    random = np.random.default_rng(derived_seed(0, "largest z", modules))
    at_once = max(1, _SCORES_AT_ONCE // modules)
    parts = [
        np.abs(robust_z(random.standard_normal((min(at_once, _OUTLIER_DRAWS - done), modules))))
        for done in range(0, _OUTLIER_DRAWS, at_once)
    ]
    return np.sort(np.concatenate(parts).max(axis=1))


def rank_p(value: float, draws: NDArray[np.float64]) -> float:
    """(1 + draws at least as large) / (1 + draws)."""
    return (1 + int((draws >= value).sum())) / (1 + len(draws))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p-values (Benjamini & Hochberg 1995); nan stays nan and counts for nothing."""
    known = [i for i, one in enumerate(p) if not math.isnan(one)]
    found, least = [math.nan] * len(p), 1.0
    for place, i in reversed(list(enumerate(sorted(known, key=lambda i: p[i]), 1))):
        least = min(least, p[i] * len(known) / place)
        found[i] = least
    return found
