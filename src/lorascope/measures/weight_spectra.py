"""Singular values and vectors of W₀, of an update, and of their sum; the same of random updates.

W₀ is decomposed once. In the basis of its singular vectors W₀ + ΔW is a diagonal plus a matrix of
the update's rank, and so is W₀ plus a random update: the leading singular vectors of such a sum
take a few hundred products with thin matrices, and their entries in that basis are at once their
cosines with the singular vectors of W₀.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from lorascope.geometry.precision import double
from lorascope.models.updates import Svd
from lorascope.randomness import generator

_NOUGHT = 1e-7
# Up to this size all singular vectors are as quick as the leading ones.
_SMALL = 64


def decompose(weight: Float[Tensor, "out in"]) -> Svd:
    """Thin SVD of W₀ in float64 from the eigenvectors of its smaller Gram matrix.

    Singular values below 1e-7 of the largest count as zero and are left out.
    """
    W = double(weight)
    tall = W.shape[0] > W.shape[1]
    ascending, vectors = torch.linalg.eigh(W.T @ W if tall else W @ W.T)
    S = ascending.flip(0).clamp(min=0.0).sqrt()
    kept = int(S.gt(_NOUGHT * S[0]).sum())
    S, near = S[:kept], vectors.flip(1)[:, :kept]
    far = (W if tall else W.T) @ near / S
    return Svd(far, S, near) if tall else Svd(near, S, far)


def rounding_norm(weight: Float[Tensor, "out in"]) -> float:
    """Frobenius norm expected of rounding W₀ to its own dtype: √(Σ spacing² / 12)."""
    _, exponents = torch.frexp(weight.float())
    # A value m · 2^e with ½ ≤ m < 1 has neighbours eps · 2^(e − 1) away; zero is exact.
    spacings = torch.exp2(exponents - 1.0) * (weight != 0)
    return torch.finfo(weight.dtype).eps * float(spacings.double().norm()) / math.sqrt(12)


def effective_ranks(singular_values: Float[Tensor, " r"]) -> tuple[float, float]:
    """Effective rank, exp of the entropy of σ / Σσ (Roy & Vetterli 2007, EUSIPCO), and the
    participation ratio of the squared singular values, (Σσ²)² / Σσ⁴."""
    values = singular_values.double()
    values = values[values > 0]
    shares, squares = values / values.sum(), values.square() / values.square().sum()
    return math.exp(-float((shares * shares.log()).sum())), 1 / float(squares.square().sum())


def random_spectrum(
    shape: tuple[int, int], r: int, factored: bool, random: torch.Generator
) -> Float[Tensor, " r"]:
    """Singular values of a Gaussian B · A of inner size r, or of one Gaussian matrix; norm 1.

    Without factors `r` must be the smaller side.
    """
    short, long = sorted(shape)
    product = _triangle(long, r, random)
    if factored:
        product = product @ _triangle(short, r, random).T
    S = torch.linalg.svdvals(product)
    return S / S.norm()


def _triangle(rows: int, r: int, random: torch.Generator) -> Float[Tensor, "r r"]:
    """Distributed as R in the QR decomposition of a Gaussian [rows, r] matrix (Bartlett 1933)."""
    entries = torch.randn(rows, r, generator=random, dtype=torch.float64)
    return entries[:r].triu(1) + entries.tril().norm(dim=0).diag()


def coordinates(
    vectors: Float[Tensor, "d r"], basis: Float[Tensor, "d n"]
) -> Float[Tensor, "n_more r"]:
    """Orthonormal vectors in an orthonormal basis, on the CPU.

    The first n rows are inside its span; where that is not everything, r or fewer rows say what
    lies outside, in a basis of its own.
    """
    vectors = vectors.to(basis)
    inside = basis.T @ vectors
    if basis.shape[0] == basis.shape[1]:
        return inside.cpu()
    return torch.cat([inside, torch.linalg.qr(vectors - basis @ inside).R]).cpu()


def random_coordinates(
    d: int, r: int, n: int, random: torch.Generator
) -> Float[Tensor, "n_more r"]:
    """`coordinates` of r orthonormal vectors uniformly random in d dimensions."""
    entries = torch.randn(d, r, generator=random, dtype=torch.float64)
    vectors, triangle = torch.linalg.qr(entries)
    # The signs that QR chooses are not random: they would favour W₀'s first direction.
    vectors = vectors * triangle.diagonal().sign()
    return torch.cat([vectors[:n], torch.linalg.qr(vectors[n:]).R]) if d > n else vectors


def leading_of_sum(
    base: Float[Tensor, " n"],
    left: Float[Tensor, "a r"],
    sizes: Float[Tensor, " r"],
    right: Float[Tensor, "b r"],
    k: int,
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Of W₀ + ΔW, in W₀'s basis: diag(base) + left · diag(sizes) · rightᵀ.

    Returns the k (at most n) largest singular values, and for each left singular vector its largest
    |cosine| with a left singular vector of W₀.
    """
    n, (a, r) = len(base), left.shape
    k = min(k, n)
    if a > max(_SMALL, 4 * r, 4 * k):
        return _by_arnoldi(base.numpy(), (left * sizes).numpy(), right.numpy(), k)
    matrix = (left * sizes) @ right.T
    matrix[:n, :n] += base.diag()
    ascending, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return ascending.flip(0)[:k].sqrt(), vectors.flip(1)[:n, :k].abs().amax(0)


def _by_arnoldi(
    base: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64], k: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    n, a, b = len(base), len(left), len(right)

    def squared(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """M Mᵀ x."""
        x = x.ravel()
        y = right @ (left.T @ x)
        y[:n] += base * x[:n]
        z = left @ (right.T @ y)
        z[:n] += base * y[:n]
        return z

    assert b >= n
    operator = LinearOperator((a, a), matvec=squared, dtype=base.dtype)
    start = torch.randn(a, generator=generator(0, "start"), dtype=torch.float64).numpy()
    ascending, vectors = eigsh(operator, k=k, v0=start, ncv=min(a, max(4 * k, 20)), tol=1e-10)
    largest_first = np.argsort(ascending)[::-1]
    cosines = np.abs(vectors[:n, largest_first]).max(axis=0)
    return torch.from_numpy(np.sqrt(ascending[largest_first])), torch.from_numpy(cosines)
