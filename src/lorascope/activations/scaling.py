"""The scale a dictionary's inputs are divided by."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable

from jaxtyping import Float
from torch import Tensor

Moments = tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]


def mean_norm(chunks: Iterable[Float[Tensor, "rows d"]]) -> float:
    """Mean of ‖x‖₂ over rows (equation 6 of the audit paper, which calls it RMS).

    Raises:
        ValueError: the rows are all zero, or not finite.
    """
    total, count = 0.0, 0
    for chunk in chunks:
        total += chunk.float().norm(dim=-1).double().sum().item()
        count += len(chunk)
    if not count or total == 0.0:
        raise ValueError("the rows are all zero")
    if not math.isfinite(total):
        raise ValueError("some rows hold NaN or infinity")
    return total / count


def mean_and_covariance(
    chunks: Iterable[Float[Tensor, "rows d"]],
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and covariance of rows in one pass, accumulated in float64."""
    total: Tensor | None = None
    second: Tensor | None = None
    count = 0
    for chunk in chunks:
        rows = chunk.double()
        total = rows.sum(0) if total is None else total + rows.sum(0)
        second = rows.T @ rows if second is None else second + rows.T @ rows
        count += len(rows)
    if total is None or second is None or count < 2:
        raise ValueError("a covariance needs at least two rows")
    mean = total / count
    covariance = (second - count * mean.outer(mean)) / (count - 1)
    return mean.float(), covariance.float()


class KnownMoments:
    """Means and covariances found so far, the oldest forgotten beyond `limit` bytes.

    Whoever reads them leaves them as they are.
    """

    def __init__(self, limit: int = 2**27) -> None:
        self._limit = limit
        self._found: dict[Hashable, Moments] = {}

    def of(
        self, name: Hashable, chunks: Callable[[], Iterable[Float[Tensor, "rows d"]]]
    ) -> Moments:
        """`mean_and_covariance` of the chunks, which are read where `name` is not known."""
        if name not in self._found:
            self._found[name] = mean_and_covariance(chunks())
            while len(self._found) > 1 and self._bytes > self._limit:
                del self._found[next(iter(self._found))]
        return self._found[name]

    @property
    def _bytes(self) -> int:
        return sum(tensor.nbytes for found in self._found.values() for tensor in found)
