"""Adapters ordered so that similar ones are adjacent, and the tree that gives the order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Clusters:
    """Average linkage on 1 − cosine.

    Attributes:
        order: adapters by number, like ones side by side.
        merges: (one, other, distance, size) of each merge; numbers from n on are earlier merges.
    """

    order: tuple[int, ...]
    merges: tuple[tuple[int, int, float, int], ...]

    def heights(self) -> list[tuple[float, float, float, float, float]]:
        """Each merge as drawn: left, right, height, and the heights of what it joins.

        Places are those of `order`, the first at 0.
        """
        places = {leaf: (float(i), 0.0) for i, leaf in enumerate(self.order)}
        found = []
        for i, (one, other, distance, _) in enumerate(self.merges, len(self.order)):
            (a, below_a), (b, below_b) = sorted((places[one], places[other]))
            found.append((a, b, distance, below_a, below_b))
            places[i] = ((a + b) / 2, distance)
        return found


def clustered(cosines: Float[Tensor, "n n"]) -> Clusters:
    """Of two or more adapters; pairs without a cosine count as unrelated."""
    # Loaded where a tree is made.
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distances = 1 - np.nan_to_num(cosines.double().numpy(), nan=0.0)
    np.fill_diagonal(distances, 0.0)
    condensed = squareform((distances + distances.T) / 2, checks=False).clip(min=0.0)
    tree = linkage(condensed, "average", optimal_ordering=True)
    merges = tuple((int(a), int(b), float(d), int(size)) for a, b, d, size in tree)
    return Clusters(tuple(int(leaf) for leaf in leaves_list(tree)), merges)
