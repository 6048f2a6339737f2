"""Debiased CKA from pairs of rows of different groups of documents.

Rows of one document resemble each other in both sets, related or not: counted among the pairs they
give CKA of independent sets a level of its own (0.03 for 20 documents of 12 rows that share a third
of their variance). Here K = XXᵀ and L = YYᵀ are read between groups only, a group being some of the
documents:

    HSIC = mean K_ij L_ij − 2 mean K_ij L_iq + mean K_ij · L_qr

with i, j, q, r of different groups in each mean (a U-statistic; Song et al. 2012 ask for different
rows). With group sums s_e, t_e of the rows and C_e = Σ x yᵀ over a group's,

    Σ K_ij L_ij = ‖Σ C_e‖² − Σ ‖C_e‖²
    Σ K_ij L_iq = Σ_e Σ_{f ≠ h, both ≠ e} s_fᵀ C_e t_h,

and any group is left out by leaving out its terms. With X of base rows and Δ of a delta's, the
products of X + Δ are sums of XᵀX, XᵀΔ, ΔᵀX and ΔᵀΔ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.geometry.chance import shifted
from lorascope.geometry.cka import PairsOfDelta, SiteMoments, centred_product

Side = tuple[float, float]
# How much of the base's rows and of the delta's each set is made of.
BASE: Side = (1.0, 0.0)
DELTA: Side = (0.0, 1.0)
ADAPTED: Side = (1.0, 1.0)
LEAST_GROUPS = 4


class Pairs(NamedTuple):
    """Debiased CKA of the base with a delta and with base + delta; nan where a set is constant."""

    base_delta: float
    base_adapted: float


class _GroupSums(NamedTuple):
    """Of groups g: counts, s_e·s_f, t_e·t_f, ‖ΣC‖², ⟨ΣC, C_e⟩, ‖C_e‖², s_fᵀ C_e t_h."""

    counts: Float[Tensor, " g"]
    x: Float[Tensor, "g g"]
    y: Float[Tensor, "g g"]
    whole: Float[Tensor, ""]
    shared: Float[Tensor, " g"]
    own: Float[Tensor, " g"]
    chained: Float[Tensor, "g g g"]

    def without(self, group: int) -> _GroupSums:
        kept = torch.arange(len(self.counts)) != group
        whole = self.whole - 2 * self.shared[group] + self.own[group]
        return _GroupSums(
            self.counts[kept],
            self.x[kept][:, kept],
            self.y[kept][:, kept],
            whole,
            self.shared[kept],
            self.own[kept],
            self.chained[kept][:, kept][:, :, kept],
        )

    @property
    def hsic(self) -> float:
        n, total = self.counts, self.counts.sum()
        squares = n.square().sum()
        pairs = (self.whole - self.own.sum()) / (total.square() - squares)
        triples = (n * ((total - n).square() - (squares - n.square()))).sum()
        m = n.outer(n)
        four = _four(self.x, self.y) / _four(m, m)
        return float(pairs - 2 * _three(self.chained) / triples + four)


def _three(chained: Float[Tensor, "g g g"]) -> Tensor:
    """Sum over e, f, h that all differ."""
    at = torch.arange(len(chained))
    equal = chained[at, at].sum() + chained[at, :, at].sum() + chained[:, at, at].sum()
    return chained.sum() - equal + 2 * chained[at, at, at].sum()


def _four(x: Float[Tensor, "g g"], y: Float[Tensor, "g g"]) -> Tensor:
    """Σ x_ef y_hk over e, f, h, k that all differ."""
    x, y = (m - m.diag().diag() for m in (x, y))
    return x.sum() * y.sum() - 4 * (x.sum(1) @ y.sum(1)) + 2 * (x * y).sum()


class BetweenGroups:
    """Debiased CKA of one delta's pairs, and the same without each group in turn."""

    def __init__(
        self,
        counts: Float[Tensor, " g"],
        sums: Float[Tensor, "two g d"],
        whole: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """`sums` of base and delta by group, `whole` = XᵀX, XᵀΔ, ΔᵀΔ, about the same centres."""
        self._counts = counts
        self._sums, self._whole = sums, self._basis(whole)
        self._grams = torch.einsum("lfd,rhd->lrfh", sums, sums).cpu()
        self._total = self._inner(self._whole, self._whole)
        self._shared: list[Tensor] = []
        self._own: list[Tensor] = []
        self._chained: list[Tensor] = []

    def add(self, products: tuple[Tensor, Tensor, Tensor]) -> None:
        """The next group's XᵀX, XᵀΔ, ΔᵀΔ."""
        basis = self._basis(products)
        self._shared.append(self._inner(self._whole, basis))
        self._own.append(self._inner(basis, basis))
        rows = self._sums.flatten(0, 1)
        two, g = self._sums.shape[:2]
        chained = [(rows @ m @ rows.T).reshape(two, g, two, g) for m in basis]
        self._chained.append(torch.stack(chained).cpu())

    @staticmethod
    def _basis(products: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        xx, xd, dd = (m.double() for m in products)
        return [xx, xd, xd.T, dd]

    @staticmethod
    def _inner(first: list[Tensor], second: list[Tensor]) -> Float[Tensor, "4 4"]:
        return torch.tensor(
            [[float((p * q).sum()) for q in second] for p in first], dtype=torch.float64
        )

    def _of(self, x: Side, y: Side) -> _GroupSums:
        p, q = (torch.tensor(side, dtype=torch.float64) for side in (x, y))
        c = p.outer(q).flatten()
        shared, own = torch.stack(self._shared), torch.stack(self._own)
        return _GroupSums(
            self._counts,
            torch.einsum("l,r,lrfh->fh", p, p, self._grams),
            torch.einsum("l,r,lrfh->fh", q, q, self._grams),
            c @ self._total @ c,
            torch.einsum("i,eij,j->e", c, shared, c),
            torch.einsum("i,eij,j->e", c, own, c),
            torch.einsum("i,l,r,eilfrh->efh", c, p, q, torch.stack(self._chained)),
        )

    def pairs(self) -> tuple[Pairs, list[Pairs], tuple[float, float, float]]:
        """CKA of both pairs; without each group in turn; HSIC of base, delta and adapted alone.

        Without a group of five or more: fewer leave too few to differ four times over.
        """
        xx, dd, aa = (self._of(side, side) for side in (BASE, DELTA, ADAPTED))
        xd, xa = self._of(BASE, DELTA), self._of(BASE, ADAPTED)

        def read(sums: list[_GroupSums]) -> Pairs:
            own, delta, adapted, both, through = (one.hsic for one in sums)
            return Pairs(ratio(both, own, delta), ratio(through, own, adapted))

        every = [xx, dd, aa, xd, xa]
        groups = range(len(self._counts) if len(self._counts) > LEAST_GROUPS else 0)
        without = [read([one.without(g) for one in every]) for g in groups]
        return read(every), without, (xx.hsic, dd.hsic, aa.hsic)


def ratio(both: float, first: float, second: float) -> float:
    """HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)); nan where a set does not vary."""
    return both / math.sqrt(first * second) if min(first, second) > 0 else math.nan


def between_groups(
    moments: SiteMoments,
    base: Float[Tensor, "n d"],
    deltas: Mapping[str, Float[Tensor, "n d"]],
    group: Int[Tensor, " n"],
) -> tuple[dict[str, BetweenGroups], dict[str, list[PairsOfDelta]]]:
    """Of every delta, from `moments` of all rows; and its plain CKA without each group in turn.

    ValueError for fewer than 4 groups.
    """
    names = group.unique()
    if len(names) < LEAST_GROUPS:
        raise ValueError(f"pairs of rows of different groups need 4 groups, {len(names)} seen")
    counts = torch.stack([(group == g).sum() for g in names]).double().cpu()
    sums = moments.group_sums(base, deltas, group)
    found = {name: BetweenGroups(counts, sums[name], moments.products(name)) for name in deltas}
    left_out: dict[str, list[PairsOfDelta]] = {name: [] for name in deltas}
    for g in names:
        kept = group == g
        part = moments.fresh().update(base[kept], {k: rows[kept] for k, rows in deltas.items()})
        for name, one in found.items():
            one.add(part.products(name))
            left_out[name].append(moments.cka(name, without=part))
    return found, left_out


class Moved(NamedTuple):
    """HSIC of the base with rows moved round: plain as in `cka.Hsic`, and between groups."""

    plain: float
    between: float


def shifted_pairs(
    base: Float[Tensor, "n d"],
    deltas: Mapping[str, Float[Tensor, "n d"]],
    group: Int[Tensor, " n"],
    minimum: int,
    generator: torch.Generator,
) -> dict[str, tuple[Moved, Moved]]:
    """HSIC of the base with each delta, and with base + delta, moved round as `chance.shifted`.

    All deltas, and the base within base + delta, by the same offset. Groups are the base's.
    """
    order = shifted(torch.arange(len(base))[:, None], minimum, generator).squeeze(1)
    order = order.to(base.device)
    base = base - base.mean(0)
    moved_base = base[order]
    found = {}
    for name, delta in deltas.items():
        moved = delta[order]
        moved = moved - moved.mean(0)
        found[name] = (_moved(base, moved, group), _moved(base, moved_base + moved, group))
    return found


def _moved(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], group: Int[Tensor, " n"]) -> Moved:
    names = group.unique()
    parts = [group == g for g in names]
    s, t = (
        torch.stack([rows[kept].sum(0, dtype=torch.float64) for kept in parts]) for rows in (x, y)
    )
    counts = torch.stack([kept.sum() for kept in parts]).double()
    whole = x.new_zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    own, chained = [], []
    for kept, n, at, to in zip(parts, counts, s, t, strict=True):
        # About the group's own means, then back to the common ones.
        product = centred_product(x[kept], y[kept]).double() + at.outer(to) / n
        whole += product
        own.append(product.square().sum())
        chained.append(s @ product @ t.T)
    plain = (whole - s.sum(0).outer(t.sum(0)) / len(x)).square().sum()
    shared = torch.zeros(len(names), dtype=torch.float64)
    sums = _GroupSums(
        counts.cpu(),
        (s @ s.T).cpu(),
        (t @ t.T).cpu(),
        whole.square().sum().cpu(),
        shared,
        torch.stack(own).cpu(),
        torch.stack(chained).cpu(),
    )
    return Moved(float(plain), sums.hsic)
