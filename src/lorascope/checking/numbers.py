"""An adapter's numbers beside random factors of the same shapes, by module, kind and in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.checking import chance
from lorascope.checking.chance import Level, random_factors
from lorascope.checking.spectra import ModuleNumbers
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import ALL_MODULES
from lorascope.results.null_names import RANDOM_FACTORS

NORM, EFFECTIVE, STABLE = "check.norm", "check.effective_rank", "check.stable_rank"
OUTLIER = "check.outlier"
# Kinds whose adjusted p-value is at most this are named.
RATE = 0.05


@dataclass(frozen=True)
class KindOutlier:
    """The modules of one kind, by the robust z of their log norms.

    Attributes:
        kind: path with numbers as *.
        modules: how many have an update that is not zero.
        largest: the module of the largest |z|; empty where there are too few.
        z: its score; nan where there are too few modules, or all are of one norm.
        p: of the largest |z| among so many.
        adjusted: the same over all kinds (Benjamini & Hochberg).
        named: modules beyond 97.5 % of the largest under chance, where the kind stands out.
    """

    kind: str
    modules: int
    largest: str
    z: float
    p: float
    adjusted: float = math.nan
    named: tuple[tuple[str, float], ...] = ()


def estimates(adapter: str, modules: Sequence[ModuleNumbers]) -> list[Estimate]:
    """Norm, effective and stable rank of every module, every kind and of all together."""
    found = []
    groups = {(module.path, module.shape[1]): [module] for module in modules}
    kinds = by_kind(modules)
    shared = {kind: several for kind, several in kinds.items() if len(several) > 1}
    for several in ({(k, None): m for k, m in shared.items()}, groups):
        for (place, rank), members in several.items():
            found += _of(Key(adapter=adapter, rank=rank, module=place), members)
    if modules:
        found = [*_of(Key(adapter=adapter, module=ALL_MODULES), list(modules)), *found]
    return found


def _of(key: Key, modules: Sequence[ModuleNumbers]) -> list[Estimate]:
    """The three numbers of one or several modules; of zero updates the norm alone."""
    draws = [random_factors(*module.shape) for module in modules]
    norm = math.hypot(*(module.norm for module in modules))
    factors = [module.factors for module in modules]
    level = chance.level_of_norm(factors, [draw.alignment for draw in draws])
    count = len(modules)
    found = [_estimate(NORM, norm, count, "weight units", level, key)]
    moving = [(m, d) for m, d in zip(modules, draws, strict=True) if m.norm > 0]
    if not moving:
        return found
    for measure, attribute in ((EFFECTIVE, "effective_rank"), (STABLE, "stable_rank")):
        value = math.fsum(getattr(m, attribute) for m, _ in moving) / len(moving)
        drawn = chance.level_of_mean([getattr(d, attribute) for _, d in moving])
        found.append(_estimate(measure, value, len(moving), "dimensions", drawn, key))
    return found


def _estimate(measure: str, value: float, n: int, unit: str, level: Level, key: Key) -> Estimate:
    """Every module is read, so that nothing of the value varies: its interval is a point."""
    null = Null(RANDOM_FACTORS, level.mean, level.low, level.high, rival=True)
    return Estimate(measure, value, (value, value), n, unit, (null,), key)


def by_kind(modules: Sequence[ModuleNumbers]) -> dict[str, list[ModuleNumbers]]:
    """{path with numbers as *: modules}, in the order in which they occur."""
    kinds: dict[str, list[ModuleNumbers]] = {}
    for module in modules:
        kinds.setdefault(module.kind, []).append(module)
    return kinds


def outliers(modules: Sequence[ModuleNumbers]) -> list[KindOutlier]:
    """Of every kind, the module whose norm is farthest from the others'."""
    found, scores = [], []
    for kind, members in by_kind([m for m in modules if m.norm > 0]).items():
        if len(members) < chance.LEAST:
            found.append(KindOutlier(kind, len(members), "", math.nan, math.nan))
            scores.append(np.zeros(0))
            continue
        z = chance.robust_z(np.log([member.norm for member in members]))
        if np.isnan(z).any():
            found.append(KindOutlier(kind, len(members), "", math.nan, math.nan))
            scores.append(z)
            continue
        at = int(np.abs(z).argmax())
        p = chance.rank_p(abs(float(z[at])), chance.largest_z(len(members)))
        found.append(KindOutlier(kind, len(members), members[at].path, float(z[at]), p))
        scores.append(z)
    adjusted = chance.benjamini_hochberg([one.p for one in found])
    kinds = by_kind([m for m in modules if m.norm > 0])
    return [
        KindOutlier(
            one.kind,
            one.modules,
            one.largest,
            one.z,
            one.p,
            q,
            _named(kinds[one.kind], z) if q <= RATE else (),
        )
        for one, q, z in zip(found, adjusted, scores, strict=True)
    ]


def _named(members: Sequence[ModuleNumbers], z: np.ndarray) -> tuple[tuple[str, float], ...]:
    bound = float(np.quantile(chance.largest_z(len(members)), 0.975))
    pairs = [(m.path, float(score)) for m, score in zip(members, z, strict=True)]
    beyond = [pair for pair in pairs if abs(pair[1]) >= bound]
    return tuple(sorted(beyond, key=lambda pair: -abs(pair[1])))


def outlier_estimates(adapter: str, found: Sequence[KindOutlier]) -> list[Estimate]:
    """The largest |robust z| of each kind beside that of random factors."""
    result = []
    for one in found:
        if math.isnan(one.z):
            continue
        draws = chance.largest_z(one.modules)
        low, high = (float(np.quantile(draws, q)) for q in (0.025, 0.975))
        null = Null(
            RANDOM_FACTORS, float(draws.mean()), low, high, rival=True, p=one.p, draws=len(draws)
        )
        value = abs(one.z)
        key = Key(adapter=adapter, module=one.kind)
        result.append(
            Estimate(OUTLIER, value, (value, value), one.modules, "deviations", (null,), key)
        )
    return result
