"""Random matrices of a given spectrum: the same singular values, singular vectors at random.

Everything is drawn on the CPU, so that a generator gives the same numbers on every device.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dct
from torch import Generator, Tensor

from lorascope.errors import NoNullAdapter

# Up to this size a random rotation is a Haar one; above it a fast one, of n log n operations.
HAAR = 2048
_ROUNDS = 3
# Up to this many numbers a matrix is rotated in float64.
_PRECISE = 2**22
# How far rounding to the weights' dtype may change the norm of all that was drawn.
_ROUNDING = 0.1

# What the generators of null adapters are named after, beside what each is of.
PURPOSE = "null adapter"


class Factors(NamedTuple):
    """B · A, with leading dimensions for a stack of matrices."""

    B: Float[Tensor, "*stack out r"]
    A: Float[Tensor, "*stack r in"]


def factor_spectrum(
    B: Float[Tensor, "*stack out r"], A: Float[Tensor, "*stack r in"]
) -> Float[Tensor, "*stack k"]:
    """The k = min(r, out, in) leading singular values of B · A, float64, largest first.

    From the QR of B and of Aᵀ and the SVD of the small R_B · R_Aᵀ; B · A is never formed.
    """
    r_b = torch.linalg.qr(B.detach().cpu().double(), mode="r").R
    r_a = torch.linalg.qr(A.detach().cpu().double().mT, mode="r").R
    return torch.linalg.svdvals(r_b @ r_a.mT)


def random_factors(
    S: Float[Tensor, "*stack k"], shape: tuple[int, int, int], generator: Generator
) -> Factors:
    """U · √S and √S · Vᵀ with independent Haar U and V, float64, padded with zeros to rank r.

    The root of S goes to either side, so neither factor is small where the other is large.

    Args:
        S: singular values of the product.
        shape: (out, r, in).
    """
    out, r, width = shape
    stack, k = S.shape[:-1], S.shape[-1]
    root = S.double().sqrt()
    U = random_basis((*stack, out, k), generator)
    V = random_basis((*stack, width, k), generator)
    B, A = torch.zeros(*stack, out, r).double(), torch.zeros(*stack, r, width).double()
    B[..., :k] = U * root[..., None, :]
    A[..., :k, :] = (V * root[..., None, :]).mT
    return Factors(B, A)


def random_basis(shape: tuple[int, ...], generator: Generator) -> Float[Tensor, "*stack n k"]:
    """k ≤ n orthonormal columns, Haar on the Stiefel manifold, float64.

    The Q of a Gaussian matrix's QR, with the signs of R's diagonal given to its columns: without
    them Q depends on the convention of the QR (Mezzadri 2007, arXiv:math-ph/0609050).
    """
    Q, R = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    return Q * R.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]


def same_spectrum(difference: Tensor, generator: Generator) -> Tensor:
    """A random tensor of the difference's shape and spectrum, on the CPU, float32 or float64.

    A vector (or number) gets a random direction and keeps its norm; a matrix keeps its singular
    values. A tensor of more dimensions is a stack of matrices along the first ones, each drawn by
    itself. Up to `HAAR` rows and columns both sets of singular vectors are Haar.
    """
    given = difference.detach().cpu()
    given = given.double() if given.numel() <= _PRECISE else given.float()
    if given.ndim < 2:
        direction = torch.randn(given.shape, generator=generator, dtype=torch.float64)
        return (direction * (given.norm() / direction.norm())).to(given.dtype)
    stack = given.reshape(-1, *given.shape[-2:])
    return torch.stack([_turned(m, generator) for m in stack]).reshape(given.shape)


def _turned(matrix: Float[Tensor, "n m"], generator: Generator) -> Float[Tensor, "n m"]:
    """The matrix between two random rotations."""
    n, m = matrix.shape
    if n < m:
        return _turned(matrix.T, generator).T
    if m < n <= HAAR:
        # the m left singular vectors alone, instead of a rotation of all n dimensions
        core = _rotated(torch.linalg.qr(matrix, mode="r").R.T, generator).T
        return random_basis((n, m), generator).to(matrix.dtype) @ core
    return _rotated(_rotated(matrix, generator).T, generator).T


def digest_of(*parts: str | bytes) -> str:
    """sha256 of texts and bytes in their order."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(raw)}|".encode() + raw)
    return digest.hexdigest()


def corner(weight: Tensor) -> bytes:
    """The first 64 numbers of a weight, by which a base is known without reading all of it."""
    first = weight.detach().flatten()[:64].cpu().contiguous()
    return first.view(torch.uint8).numpy().tobytes()


class Rounding:
    """Adds random updates to weights and sees what rounding to the weights' dtype leaves of them.

    In bfloat16 a change of less than about 1/512 of a weight is lost or doubled. A trained
    change is made of steps that the dtype has; a random one is not.
    """

    def __init__(self) -> None:
        self._wanted = self._found = 0.0

    def redrawn(
        self, ours: Tensor, theirs: Tensor, generator: Generator, factor: float = 1.0
    ) -> Tensor:
        """`ours` plus a random update of the spectrum of theirs - ours, in the dtype of `theirs`.

        Args:
            ours: weight of the base.
            theirs: the adapted weight, of the same shape.
            factor: what the update is multiplied by.
        """
        base = _precise(ours)
        update = factor * same_spectrum(theirs.detach().cpu().to(base.dtype) - base, generator)
        return self._added(base, update, theirs)

    def added(self, ours: Tensor, update: Tensor) -> Tensor:
        """`ours` plus an update of its shape, in the dtype and on the device of `ours`."""
        base = _precise(ours)
        return self._added(base, update.detach().cpu().to(base.dtype), ours)

    def _added(self, base: Tensor, update: Tensor, like: Tensor) -> Tensor:
        found = (base + update).to(like.dtype)
        self._wanted += float(update.double().square().sum())
        self._found += float((found.to(base.dtype) - base).double().square().sum())
        return found.to(like.device)

    def check(self, name: str) -> None:
        """Refuse if rounding changed the norm of all updates together by more than a tenth.

        Raises:
            NoNullAdapter: it did.
        """
        ratio = (self._found / self._wanted) ** 0.5 if self._wanted else 1.0
        if abs(ratio - 1) > _ROUNDING:
            raise NoNullAdapter(
                f'adapter "{name}" changes its weights by so little that the dtype they are held '
                f"in makes a random change of that size {ratio:.2g} times as large: load the "
                "model with dtype float32"
            )


def _precise(weight: Tensor) -> Tensor:
    base = weight.detach().cpu()
    return base.double() if base.numel() <= _PRECISE else base.float()


def _rotated(matrix: Float[Tensor, "n m"], generator: Generator) -> Float[Tensor, "n m"]:
    """R · matrix with a random orthogonal R, [n, n].

    Up to `HAAR` rows R is Haar, applied from the Householder vectors of a Gaussian matrix's QR.
    Above, R is `_ROUNDS` times a permutation, random signs and an orthonormal cosine transform:
    orthogonal to rounding and close to Haar in what it does to any fixed direction, for n log n
    operations a column.
    """
    n = len(matrix)
    if n <= HAAR:
        gaussian = torch.randn(n, n, generator=generator, dtype=torch.float64).to(matrix.dtype)
        reflectors, tau = torch.geqrf(gaussian)
        turned: Tensor = torch.ormqr(
            reflectors, tau, reflectors.diagonal().sign()[:, None] * matrix
        )
        return turned
    found = matrix.numpy()
    for _ in range(_ROUNDS):
        order = torch.randperm(n, generator=generator).numpy()
        flips = torch.randint(2, (n, 1), generator=generator).numpy().astype(found.dtype) * 2 - 1
        found = dct(np.ascontiguousarray(found[order]) * flips, axis=0, norm="ortho")
    return torch.from_numpy(found)
