"""Logistic regression, and how well its scores tell two labels apart.

The regression is scikit-learn's by its objective, so that published probes can be compared:

    min over w, b   ½ ‖w‖² / C + Σ log(1 + exp(−y (x·w + b)))        y = ±1, C = 1, b free

It is convex with one minimum. Up to `_NEWTON` features it is found by Newton's method, for wider
rows by L-BFGS (scipy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import optimize, special, stats
from torch import Tensor

from lorascope.stats.intervals import TAIL, UNKNOWN, Interval

_NEWTON = 64
_STEPS = 100
_CLOSE = 1e-9
Array = np.ndarray


@dataclass(frozen=True)
class Logistic:
    """A fitted regression: score = x · weight + bias; above 0 means label 1."""

    weight: Array
    bias: float

    def scores(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, " rows"]:
        """Log-odds of label 1."""
        found = rows.double().cpu().numpy() @ self.weight + self.bias
        return torch.from_numpy(np.asarray(found))


def fit_logistic(
    rows: Float[Tensor, "rows d"],
    labels: Int[Tensor, " rows"],
    c: float = 1.0,
    *,
    balanced: bool = False,
) -> Logistic:
    """The regression of labels 0 and 1 on rows.

    Args:
        c: inverse strength of the penalty on the weights.
        balanced: weigh both labels alike, n / (2 n_label) a row.
    """
    x = rows.double().cpu().numpy()
    y = labels.cpu().numpy().astype(float)
    each = np.ones(len(y))
    if balanced:
        share = y.mean()
        each = np.where(y > 0, 0.5 / share, 0.5 / (1 - share))
    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    penalty = np.full(ones.shape[1], 1.0 / c)
    penalty[-1] = 0.0
    found = (_newton if x.shape[1] <= _NEWTON else _lbfgs)(ones, y, each, penalty)
    return Logistic(found[:-1], float(found[-1]))


def _objective(w: Array, x: Array, y: Array, each: Array, penalty: Array) -> tuple[float, Array]:
    scores = x @ w
    loss = float(each @ (np.logaddexp(0.0, scores) - y * scores) + 0.5 * penalty @ w**2)
    return loss, x.T @ (each * (special.expit(scores) - y)) + penalty * w


def _newton(x: Array, y: Array, each: Array, penalty: Array) -> Array:
    # In units of each feature's spread, so that no step is lost to their scales.
    units = np.sqrt((x**2).mean(axis=0))
    units[units == 0] = 1.0
    x, penalty = x / units, penalty / units**2
    w = np.zeros(x.shape[1])
    value, gradient = _objective(w, x, y, each, penalty)
    for _ in range(_STEPS):
        p = special.expit(x @ w)
        curvature = (x * (each * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        curvature[np.diag_indices_from(curvature)] += 1e-12 * len(x)
        step = np.linalg.solve(curvature, gradient)
        if abs(gradient @ step) < _CLOSE * max(1.0, abs(value)) * 1e-3:
            break
        length = 1.0
        while length > 1e-8:
            tried, slope = _objective(w - length * step, x, y, each, penalty)
            if tried <= value - 1e-4 * length * float(gradient @ step):
                break
            length /= 2
        w, value, gradient = w - length * step, tried, slope
    return w / units


def _lbfgs(x: Array, y: Array, each: Array, penalty: Array) -> Array:
    found = optimize.minimize(
        _objective,
        np.zeros(x.shape[1]),
        (x, y, each, penalty),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-12},
    )
    return np.asarray(found.x)


def placements(
    scores: Float[Tensor, " rows"], labels: Int[Tensor, " rows"]
) -> tuple[Array, Array, float]:
    """(share of zeros that each one is above, share of ones that each zero is below, AUC).

    Ties count half (DeLong, DeLong & Clarke-Pearson 1988).
    """
    values, ones = scores.double().numpy(), labels.numpy() > 0
    above, below = values[ones], values[~ones]
    ranks = stats.rankdata(np.concatenate([above, below]))
    own, other = stats.rankdata(above), stats.rankdata(below)
    m, n = len(above), len(below)
    over = (ranks[:m] - own) / n
    under = 1 - (ranks[m:] - other) / m
    return over, under, float(over.mean())


def auc_interval(first: tuple[Array, Array], second: tuple[Array, Array] | None = None) -> Interval:
    """95 % interval of an AUC, or of first − second on the same rows, by DeLong's variance.

    Args:
        first, second: placements of the ones and of the zeros.
    """
    parts = [
        one if second is None else one - two
        for one, two in zip(first, second or first, strict=True)
    ]
    if min(map(len, parts)) < 2:
        return UNKNOWN
    value = float(parts[0].mean())
    spread = math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in parts))
    half = float(stats.norm.ppf(1 - TAIL)) * spread
    return value - half, value + half
