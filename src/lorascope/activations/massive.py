"""Massive coordinates and directions of a stream: few of them with most of its energy.

All larger language models have some (Sun et al. 2024, "Massive activations in large language
models"). Energy is the mean square about zero. The rule, in this order:

1. A coordinate is massive that holds more than 5 % of the energy and more than 100 times as much as
   the median coordinate. Where more than an eighth of the coordinates do, none is.
2. In what is left of the rows without them, the leading principal directions (about zero) are
   massive that hold more than 5 % of the energy each and stand, as a group of at most eight, 10
   times above the next one. They are looked for in a base stream only: a low-rank delta consists of
   such directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.settings import Treatment

OVER_MEDIAN: Final = 100.0
LEAST_SHARE: Final = 0.05
OVER_NEXT: Final = 10.0
MOST_DIRECTIONS: Final = 8
# More than this part of all coordinates are no few.
_FEW: Final = 8


@dataclass(frozen=True, eq=False)
class Massive:
    """What holds most of a stream's energy.

    Attributes:
        coordinates: their indices, most energy first.
        directions: orthonormal, zero at the coordinates, most energy first.
        shares: of the stream's energy, of the coordinates, then of the directions.
        ratios: of a coordinate's energy to the median coordinate's, of a direction's to that of
            the first direction that is not massive.
    """

    coordinates: tuple[int, ...]
    directions: Float[Tensor, "m d"]
    shares: tuple[float, ...]
    ratios: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.shares)

    @property
    def share(self) -> float:
        """Of the stream's energy, what all of them hold together."""
        return sum(self.shares)

    @property
    def basis(self) -> Float[Tensor, "m d"]:
        """All of them as orthonormal rows, coordinates first."""
        units = torch.zeros(len(self.coordinates), self.directions.shape[1])
        units[torch.arange(len(units)), list(self.coordinates)] = 1.0
        return torch.cat([units, self.directions])

    def without(self, rows: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """The rows with all of them projected out."""
        basis = self.basis.to(rows)
        left = rows - (rows @ basis.T) @ basis
        # Exactly zero: a rounding of what is massive is large beside the rest.
        left[..., list(self.coordinates)] = 0.0
        return left

    def record(self) -> dict[str, Any]:
        """As plain data; a direction is named by the three coordinates it lies in most."""
        first = len(self.coordinates)
        return {
            "coordinates": [
                {"coordinate": i, "share": share, "over_median": ratio}
                for i, share, ratio in zip(self.coordinates, self.shares, self.ratios, strict=False)
            ],
            "directions": [
                {
                    "mostly": direction.abs().topk(min(3, len(direction))).indices.tolist(),
                    "share": share,
                    "over_next": ratio,
                }
                for direction, share, ratio in zip(
                    self.directions, self.shares[first:], self.ratios[first:], strict=True
                )
            ],
        }


def find_massive(rows: Float[Tensor, "rows d"], directions: bool = True) -> Massive:
    """The massive coordinates of rows, and the massive directions of what they leave.

    Args:
        rows: a sample of the stream, uncentred.
        directions: whether to look for directions too; not in a delta.
    """
    x = rows.double()
    energy = x.square().mean(0)
    total = float(energy.sum())
    none = torch.zeros(0, x.shape[1])
    positive = energy[energy > 0]
    if not len(positive):
        return Massive((), none, (), ())
    over = energy / positive.median()
    found = ((energy > LEAST_SHARE * total) & (over > OVER_MEDIAN)).nonzero().squeeze(1)
    if len(found) > x.shape[1] // _FEW:
        found = found[:0]
    found = found[energy[found].argsort(descending=True)]
    shares, ratios = (energy[found] / total).tolist(), over[found].tolist()
    if not directions:
        return Massive(tuple(found.tolist()), none, tuple(shares), tuple(ratios))
    left = x.clone()
    left[:, found] = 0.0
    vectors, heights, gap = _leading(left)
    return Massive(
        tuple(found.tolist()),
        vectors,
        (*shares, *(height / total for height in heights)),
        (*ratios, *(height / gap if gap > 0 else float("inf") for height in heights)),
    )


def _leading(rows: Float[Tensor, "rows d"]) -> tuple[Float[Tensor, "m d"], list[float], float]:
    """The massive directions of rows without massive coordinates, the energy of each, and that of
    the first direction after them."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).T
    most = min(MOST_DIRECTIONS, len(values) // _FEW)
    enough = int((values[:most] > LEAST_SHARE * values.sum()).sum())
    for count in range(enough, 0, -1):
        if values[count - 1] > OVER_NEXT * values[count]:
            return vectors[:count].float(), values[:count].tolist(), float(values[count])
    return torch.zeros(0, rows.shape[1]), [], 0.0


@dataclass(frozen=True, eq=False)
class Levelling:
    """An affine map of a stream that takes massive components down to the others' size.

    x ↦ (x − c U) A with A = I − Uᵀ (1 − S) U: along each row u of U the component u·x becomes
    s (u·x − c). The inverse is exact.

    Attributes:
        basis: U, orthonormal rows.
        centre: c, the mean component along each.
        factors: s, above 0 and at most 1.
    """

    basis: Float[Tensor, "m d"]
    centre: Float[Tensor, " m"]
    factors: Float[Tensor, " m"]

    def level(self, rows: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """Rows as they are trained on, float32."""
        x = rows.float()
        basis, centre, factors = (t.to(x) for t in (self.basis, self.centre, self.factors))
        parts = x @ basis.T
        return (x - parts @ basis) + ((parts - centre) * factors) @ basis

    def read(self, columns: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
        """A · columns: what reads the stream as the columns read levelled rows."""
        basis, factors = self.basis.to(columns), self.factors.to(columns)
        return columns + basis.T @ ((factors - 1)[:, None] * (basis @ columns))

    def write(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """rows · A⁻¹: what is written into the stream where the rows are into levelled ones."""
        basis, factors = self.basis.to(rows), self.factors.to(rows)
        return rows + ((rows @ basis.T) * (1 / factors - 1)) @ basis

    @property
    def offset(self) -> Float[Tensor, " d"]:
        """c U: the point of the stream that is mapped to nought along the massive components."""
        return self.centre @ self.basis


def levelling(
    rows: Float[Tensor, "rows d"], massive: Massive, treatment: Treatment
) -> Levelling | None:
    """The map that takes massive components down; None where nothing is massive or all is kept.

    Args:
        rows: the sample they were found in.
        treatment: "clip" scales a massive component down to the spread (standard deviation) of the
            widest coordinate or direction that is not massive; "whiten" to the root mean square
            spread of all coordinates left. Neither scales a component up.
    """
    if treatment == "keep" or not massive:
        return None
    x = rows.double()
    basis = massive.basis.double()
    parts = x @ basis.T
    spreads = parts.std(0)
    rest = massive.without(x - x.mean(0))
    variances = rest.square().sum(0) / (len(rest) - 1)
    coordinates, directions = len(massive.coordinates), len(massive.directions)
    if treatment == "whiten":
        left = rest.shape[1] - coordinates - directions
        targets = (variances.sum() / left).sqrt().expand(len(basis))
    else:
        widest = variances.max().sqrt().expand(coordinates)
        targets = widest
        if directions:
            along = rest.T @ rest / (len(rest) - 1)
            principal = torch.linalg.eigvalsh(along)[-1].clamp(min=0).sqrt()
            targets = torch.cat([widest, principal.expand(directions)])
    # What does not vary is only centred; rows that vary nowhere else are left to themselves.
    small = (spreads <= targets) | (targets <= 0)
    factors = torch.where(small, 1.0, targets / spreads.clamp(min=1e-300))
    return Levelling(basis.float(), parts.mean(0).float(), factors.float())
