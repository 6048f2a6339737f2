"""Max cosine and principal angles of two dictionaries, as far as their directions allow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures import alignment
from lorascope.results import Estimate, Key
from lorascope.workflows.measured import Measured


def aligned(
    angles_k: Sequence[int],
    first: Dictionary,
    second: Dictionary,
    place: Key,
    nulls: alignment.NullSettings,
    alive: Bool[Tensor, " n"],
    found: Measured,
) -> None:
    """Max cosine and principal angles of two dictionaries' directions.

    Args:
        angles_k: subspace dimensions; those that the directions do not span are left out.
    """
    pair = (first.directions, second.directions)
    shared: dict[str, Any] = {"nulls": nulls, "place": place, "alive": alive}
    if not found.attempt(place, partial(alignment.max_cosine_estimates, *pair, **shared)):
        return

    def angles(k: Sequence[int]) -> list[Estimate]:
        return alignment.angle_estimates(*pair, k=k, **shared)

    sizes = list(angles_k)
    while sizes and not found.attempt(place, partial(angles, tuple(sizes))):
        # The largest is what the directions do not span.
        sizes.remove(max(sizes))
