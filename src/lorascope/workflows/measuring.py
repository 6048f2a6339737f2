"""Every number of an audit, adapter by adapter and site by site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.activations.scaling import mean_and_covariance
from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.estimates import Estimate, Place
from lorascope.measures import alignment, firing, norms, overlap, reconstruction
from lorascope.measures.rows import HeldOut
from lorascope.workflows.learning import Learned
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy


@dataclass(frozen=True, eq=False)
class Audit:
    """What the measures read.

    Attributes:
        probe, held_out: activations dictionaries were trained on, and those to measure on.
        learned: the dictionaries.
        ranks: rank of each adapter, None for a full fine-tune.
        floor: numeric noise at each site, stream units.
    """

    study: AuditStudy
    probe: Shards
    held_out: Shards
    learned: Learned
    ranks: dict[str, int | None]
    floor: dict[str, float]

    @property
    def angles_k(self) -> tuple[int, ...]:
        """Subspace dimensions; a quarter of the stream's width, at most 256, by default."""
        return self.study.measures.angles_k or (max(1, min(256, self.probe.d_model // 4)),)


@dataclass(frozen=True)
class Measured:
    """The estimates of a run, and a line for every group of them that could not be computed."""

    estimates: list[Estimate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, place: Place, compute: Callable[[], list[Estimate]]) -> bool:
        """Keep what `compute` returns; where its input does not allow it, keep the reason."""
        try:
            self.estimates.extend(compute())
        except InputError as error:
            parts = (place.dictionary, "" if place.seed is None else f"seed {place.seed}")
            which = ", ".join(part for part in parts if part)
            self.warnings.append(
                f"{place.adapter or 'base'} at {place.site}{which and f' ({which})'}: "
                f"numbers left out: {error}"
            )
            return False
        return True


def measure(audit: Audit, reporter: Reporter) -> Measured:
    """All estimates of the run; one that cannot be computed does not take the others with it."""
    sites, adapters = audit.probe.sites, audit.probe.adapters
    found = Measured()
    with reporter.bar("measuring", len(sites) * (len(adapters) + 1), "conditions") as advance:
        for site in sites:
            _, covariance = mean_and_covariance(audit.probe.chunks(site, BASE))
            _base_pair(audit, site, covariance, found)
            advance(1)
            for adapter in adapters:
                _condition(audit, site, adapter, covariance, found)
                advance(1)
    return found


def _condition(
    audit: Audit,
    site: str,
    adapter: str,
    base_covariance: Float[Tensor, "d d"],
    found: Measured,
) -> None:
    seed, repeats = audit.study.seed, audit.study.measures.repeats
    rows = HeldOut.load(audit.held_out, site, adapter, audit.study.measures.rows)
    mean, covariance = mean_and_covariance(audit.probe.chunks(site, adapter))
    nulls = alignment.NullSettings(covariance, base_covariance, repeats, seed)
    place = Place(adapter=adapter, rank=audit.ranks[adapter], site=site)
    found.estimates.extend(norms.norm_estimates(rows, audit.floor[site], place, seed))
    found.estimates.append(norms.rank_estimate(rows, place, seed))
    for pair, other in (("base_delta", rows.delta), ("base_adapted", rows.adapted)):
        cka = partial(
            alignment.cka_estimates, rows.base, other, rows.documents, pair, place=place, seed=seed
        )
        found.attempt(place, partial(cka, repeats=repeats))
    for dictionary_seed in audit.study.dictionaries.seeds:
        here = replace(place, seed=dictionary_seed)
        base, learned = _dictionaries(audit, here)
        found.estimates.extend(_with_dictionaries(audit, here, rows, mean, base, learned))
        alive = firing.firing(learned, rows.delta).alive
        compared = replace(here, dictionary="delta vs base")
        _aligned(audit, learned, base, compared, nulls, alive, found)
    _delta_pair(audit, place, rows, nulls, found)


def _dictionaries(audit: Audit, place: Place) -> tuple[Dictionary, Dictionary]:
    """The base dictionary and the delta dictionary of one site, adapter and seed."""
    assert place.seed is not None
    base = audit.learned.base(place.site, place.seed)
    if base is None:
        raise InputError(f"{place.site}: there is no base dictionary; name one in the study")
    return base, audit.learned.delta(place.site, place.adapter, place.seed)


def _with_dictionaries(
    audit: Audit,
    place: Place,
    rows: HeldOut,
    mean: Float[Tensor, " d"],
    base: Dictionary,
    learned: Dictionary,
) -> Iterator[Estimate]:
    """Reconstruction, firing and overlap of one pair of base and delta dictionaries."""
    study = audit.study
    of_base, of_delta = replace(place, dictionary="base"), replace(place, dictionary="delta")

    base_errors = reconstruction.errors(base, rows.delta, rows.documents)
    delta_errors = reconstruction.errors(learned, rows.delta, rows.documents)
    base_nulls = reconstruction.null_errors(base, rows, mean, study.seed)
    delta_nulls = reconstruction.null_errors(learned, rows, mean, study.seed)
    yield from reconstruction.error_estimates(base_errors, base_nulls, of_base, study.seed)
    yield from reconstruction.error_estimates(delta_errors, delta_nulls, of_delta, study.seed)
    yield from reconstruction.error_estimates(
        reconstruction.difference_errors(base, rows),
        base_nulls,
        replace(place, dictionary="base difference"),
        study.seed,
    )
    gaussian = audit.learned.gaussian(place.site, place.adapter, study.dictionaries.seeds[0])
    control = (
        reconstruction.errors(gaussian, rows.delta, rows.documents)
        if gaussian is not None
        else None
    )
    yield reconstruction.improvement(
        base_errors, delta_errors, learned, control, rows, place, study.seed
    )
    on_base = firing.firing(base, rows.delta)
    on_delta = firing.firing(learned, rows.delta)
    for dictionary, fired, where in ((base, on_base, of_base), (learned, on_delta, of_delta)):
        yield from firing.firing_estimates(
            dictionary, fired, rows.delta, rows.documents, where, study.seed
        )
    yield from overlap.overlap_estimates(base, rows, place, study.seed)


def _aligned(
    audit: Audit,
    first: Dictionary,
    second: Dictionary,
    place: Place,
    nulls: alignment.NullSettings,
    alive: Bool[Tensor, " n"],
    found: Measured,
) -> None:
    """Max cosine and principal angles of two dictionaries' directions."""
    pair = (first.directions, second.directions)
    shared: dict[str, Any] = {"nulls": nulls, "place": place, "alive": alive}
    if not found.attempt(place, partial(alignment.max_cosine_estimates, *pair, **shared)):
        return

    def angles(k: Sequence[int]) -> list[Estimate]:
        return alignment.angle_estimates(*pair, k=k, **shared)

    sizes = sorted(audit.angles_k)
    while sizes and not found.attempt(place, partial(angles, tuple(sizes))):
        # The largest is what the directions do not span.
        sizes.pop()


def _delta_pair(
    audit: Audit, place: Place, rows: HeldOut, nulls: alignment.NullSettings, found: Measured
) -> None:
    """The reference: delta dictionaries of different seeds against each other."""
    for one, other in combinations(audit.study.dictionaries.seeds, 2):
        first = audit.learned.delta(place.site, place.adapter, one)
        second = audit.learned.delta(place.site, place.adapter, other)
        here = replace(place, seed=one, dictionary="delta vs delta")
        alive = firing.firing(first, rows.delta).alive
        _aligned(audit, first, second, here, nulls, alive, found)


def _base_pair(audit: Audit, site: str, covariance: Float[Tensor, "d d"], found: Measured) -> None:
    """The upper reference: base dictionaries of different seeds against each other."""
    if site in audit.learned.brought:
        return
    rows = audit.held_out.load(site, BASE)
    nulls = alignment.NullSettings(None, covariance, audit.study.measures.repeats, audit.study.seed)
    for one, other in combinations(audit.study.dictionaries.seeds, 2):
        first, second = audit.learned.base(site, one), audit.learned.base(site, other)
        assert first is not None
        assert second is not None
        here = Place(site=site, seed=one, dictionary="base vs base")
        alive = firing.firing(first, rows).alive
        _aligned(audit, first, second, here, nulls, alive, found)
