"""What the geometry looks like where there is nothing to find: random directions and rows.

Numbers are drawn on the generator's device and moved to where they are used, so that a CPU
generator gives the same draw everywhere.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.geometry.cosine import unit_rows
from lorascope.geometry.precision import at_least_single, double


def _normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, d, generator=generator, device=generator.device)


def isotropic(n: int, d: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Unit directions uniform on the sphere."""
    return unit_rows(_normal(n, d, generator))


def covariance_root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric square root, float32; eigenvalues below zero (rounding) count as zero."""
    values, vectors = torch.linalg.eigh(double(covariance))
    root = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    return root.float().to(covariance.device)


def directions_from_root(
    n: int, root: Float[Tensor, "d d"], generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Unit directions of zero-mean Gaussian rows whose covariance has this `covariance_root`.

    Of the root of an uncentred second moment, the mean's direction takes part.
    """
    return unit_rows(_normal(n, root.shape[0], generator).to(root.device) @ root.T)


def gaussian_rows(
    n: int,
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Gaussian rows with this mean and centred covariance, not normalised."""
    root = covariance_root(covariance)
    return _normal(n, len(mean), generator).to(root.device) @ root.T + at_least_single(mean)


def random_rotation(
    d: int, generator: torch.Generator, device: torch.device | str | None = None
) -> Float[Tensor, "d d"]:
    """A Haar-uniform orthogonal matrix (determinant ±1) on `device`, the generator's by default.

    QR alone is not uniform: its signs are the algorithm's. They are fixed by R's diagonal
    (Mezzadri 2007).
    """
    q, r = torch.linalg.qr(_normal(d, d, generator).to(device or generator.device))
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


def random_subspace(
    d: int, k: int, generator: torch.Generator, device: torch.device | str | None = None
) -> Float[Tensor, "d k"]:
    """An orthonormal basis of a uniformly random k-dimensional subspace.

    The top-k subspace of any number of isotropic directions has this same distribution.
    """
    return torch.linalg.qr(_normal(d, k, generator).to(device or generator.device)).Q


def rotated(directions: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """All directions under one random rotation: angles among them stay, relations outwards go."""
    directions = at_least_single(directions)
    rotation = random_rotation(directions.shape[1], generator, directions.device)
    return directions @ rotation.T.to(directions.dtype)


def norm_matched(rows: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Isotropic directions, each with the norm of its row."""
    rows = at_least_single(rows)
    directions = isotropic(rows.shape[0], rows.shape[1], generator).to(rows)
    return directions * rows.norm(dim=-1, keepdim=True)


def shifted(
    rows: Float[Tensor, "n d"], minimum: int, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Rows moved round by one random offset in [minimum, n − minimum].

    Order within the rows stays, so their autocorrelation does too; with `minimum` the longest
    document no row meets its own document. ValueError where the range is empty.
    """
    n = len(rows)
    if not 0 <= 2 * minimum <= n:
        raise ValueError(f"cannot move {n} rows by at least {minimum} both ways round")
    offset = torch.randint(
        minimum, n - minimum + 1, (), generator=generator, device=generator.device
    )
    return rows.roll(int(offset), dims=0)


def columns_shuffled(
    rows: Float[Tensor, "n d"], generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Each dimension's values in an order of their own.

    Every dimension keeps its distribution; what dimensions have to do with one another goes.
    """
    found = torch.empty_like(rows)
    for column in range(rows.shape[1]):
        order = torch.randperm(len(rows), generator=generator)
        found[:, column] = rows[order.to(rows.device), column]
    return found
