"""Principal subspaces of a set of directions, and the angles between two of them.

Wide directions take a quick way: the Gram matrix in float32, its leading eigenvectors by block
Lanczos, and at last the directions themselves projected on these, so that the rounding of the Gram
matrix cannot mix those kept with their neighbours. Where the spectrum is too steep for float32, or
k too large for Lanczos to pay, all is done in float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.geometry import krylov
from lorascope.geometry.precision import double, single
from lorascope.geometry.products import gram

# Up to this width the float64 way is as quick.
_NARROW = 1024
# Radians, for each source of error; 0.05° is 9e-4.
_ANGLE = 2e-4
_CHUNK = 4096


def gram_matrix(directions: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """XᵀX in the precision `principal_subspace` starts from: float64, or float32 where wide.

    Sums and differences of such matrices are those of joined and left-out rows.
    """
    return gram(single(directions) if _is_wide(directions) else double(directions))


def numerical_rank(directions: Float[Tensor, "n d"]) -> int:
    """How many dimensions the rows span, beyond the rounding of their dtype."""
    return _eigenvectors(directions, gram(double(directions)))[1]


def principal_subspace(
    directions: Float[Tensor, "n d"], k: int, gram_of_them: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, "d k"]:
    """Orthonormal top-k right singular vectors of the rows, float64; row scale matters.

    Columns are ordered, so the first j of them are the top-j subspace. Within 0.05° of what
    float64 gives, as far as the singular values are apart. `gram_of_them` is their `gram_matrix`
    where it is known. ValueError where k exceeds the numerical rank.
    """
    known = gram_matrix(directions) if gram_of_them is None else gram_of_them
    if _is_wide(directions):
        vectors = _by_lanczos(single(directions), k, known)
        if vectors is None:
            rows = double(directions)
            known = gram(rows)
            vectors = _by_lanczos(rows, k, known)
        if vectors is not None:
            return vectors
    vectors, rank = _eigenvectors(directions, known)
    if not 1 <= k <= rank:
        raise ValueError(f"k={k} is outside 1..{rank}, the rank of the directions")
    return vectors[:, :k]


def _is_wide(directions: Tensor) -> bool:
    return directions.shape[1] > _NARROW and directions.dtype != torch.float64


def _eigenvectors(directions: Tensor, known: Float[Tensor, "d d"]) -> tuple[Tensor, int]:
    """All right singular vectors as columns, largest singular value first, and the rank."""
    ascending, vectors = torch.linalg.eigh(known)
    energies = ascending.flip(0)
    return vectors.flip(1), int((energies > _nought(directions, energies[0])).sum())


def _nought(directions: Tensor, largest: Tensor) -> Tensor:
    """Energy up to which a dimension counts as empty: rounding of the dtype, and of squaring."""
    size, eps = max(directions.shape), torch.finfo(torch.float64).eps
    own = torch.finfo(directions.dtype).eps if directions.is_floating_point() else eps
    return largest * max(size * own**2, size * eps)


def _by_lanczos(rows: Tensor, k: int, known: Float[Tensor, "d d"]) -> Tensor | None:
    """The top-k subspace, or None where k is out of reach for Lanczos or for the rows' dtype."""
    n, d = rows.shape
    window = k + max(16, k // 8)
    if k < 1 or window > d // 4:
        return None
    eps = torch.finfo(rows.dtype).eps
    # Each entry of the Gram matrix strays by a few last places, independently of the others.
    strays = 4 * eps * float(torch.linalg.matrix_norm(known)) / d**0.5
    found = krylov.leading_eigenvectors(known, k, window, _ANGLE, strays / _ANGLE, 3 * d // 4)
    if found is None:
        return None
    last, after, outside = (found.values[i] for i in (k - 1, k, window))
    if strays > _ANGLE * (last - outside) or last <= _nought(rows.float(), found.values[0]):
        return None
    product_strays = 0.5 * eps * (known.trace() / n * last).sqrt()
    narrow = bool(product_strays > _ANGLE * (last - after))
    return _rotated(rows, found.vectors, torch.float64 if narrow else rows.dtype)[:, :k]


def _rotated(rows: Tensor, vectors: Float[Tensor, "d w"], products: torch.dtype) -> Tensor:
    """Right singular vectors of the rows within the span of `vectors`, largest first, float64."""
    basis = torch.linalg.qr(vectors.double()).Q
    within = basis.new_zeros(basis.shape[1], basis.shape[1])
    factor = basis.to(products)
    for chunk in rows.split(_CHUNK):
        projected = (chunk.to(products) @ factor).double()
        within.addmm_(projected.T, projected)
    return basis @ torch.linalg.eigh(within).eigenvectors.flip(1)


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
