"""Principal subspaces of a set of directions, and the angles between two of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.geometry.precision import double


def _right_singular(directions: Tensor) -> tuple[Tensor, int]:
    """All right singular vectors as columns, largest singular value first, and the rank."""
    n, d = directions.shape
    rows = double(directions)
    if n < d:
        _, singular, right = torch.linalg.svd(rows, full_matrices=False)
        energies, vectors = singular.square(), right.T
    else:
        ascending, vectors = torch.linalg.eigh(rows.T @ rows)
        energies, vectors = ascending.flip(0), vectors.flip(1)
    # Rounding of the input's own dtype, and of the squaring, both count as zero.
    size, eps = max(n, d), torch.finfo(torch.float64).eps
    own = torch.finfo(directions.dtype).eps if directions.is_floating_point() else eps
    floor = energies[0] * max(size * own**2, size * eps)
    return vectors, int((energies > floor).sum())


def numerical_rank(directions: Float[Tensor, "n d"]) -> int:
    """How many dimensions the rows span, beyond the rounding of their dtype."""
    return _right_singular(directions)[1]


def principal_subspace(directions: Float[Tensor, "n d"], k: int) -> Float[Tensor, "d k"]:
    """Orthonormal top-k right singular vectors of the rows, float64; row scale matters.

    Columns are ordered, so the first j of them are the top-j subspace. ValueError where k exceeds
    the numerical rank.
    """
    vectors, rank = _right_singular(directions)
    if not 1 <= k <= rank:
        raise ValueError(f"k={k} is outside 1..{rank}, the rank of the directions")
    return vectors[:, :k]


def principal_angles(q1: Float[Tensor, "d k1"], q2: Float[Tensor, "d k2"]) -> Float[Tensor, " k"]:
    """Angles in degrees between the spans of two orthonormal bases, ascending, k = min(k1, k2).

    The cosine of a small angle and the sine of a large one lose half the digits, so each angle is
    taken from both (Björck & Golub 1973; Knyazev & Argentati 2002).
    """
    wide, narrow = (q1, q2) if q1.shape[1] >= q2.shape[1] else (q2, q1)
    wide, narrow = double(wide), double(narrow)
    inner = wide.T @ narrow
    cosines = torch.linalg.svdvals(inner)
    sines = torch.linalg.svdvals(narrow - wide @ inner).flip(0)
    return torch.rad2deg(torch.atan2(sines, cosines))
