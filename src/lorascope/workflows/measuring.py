"""Every number of an audit, adapter by adapter and site by site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lorascope.activations.scaling import mean_and_covariance
from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.estimates import Estimate, Place
from lorascope.measures import alignment, firing, norms, overlap, pursuit, reconstruction
from lorascope.measures.rows import HeldOut
from lorascope.runs import Run
from lorascope.workflows.learning import Learned
from lorascope.workflows.measured import Measured
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy, Control

MEASURES = "measures"
# What the null of a dictionary trained on a control is called.
TRAINED_ON: dict[Control, str] = {
    "gaussian": "trained on Gaussian-matched deltas",
    "shuffled": "trained on row-shuffled deltas",
    "permuted": "trained on dimension-permuted deltas",
}
_PARENTS = ("gates", "activations/probe", "activations/held_out")


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


def measure(audit: Audit, run: Run, reporter: Reporter) -> Measured:
    """All estimates of the run, one stage a site; one that cannot be computed does not take the
    others with it."""
    sites, adapters = audit.probe.sites, audit.probe.adapters
    found = Measured()
    with reporter.bar("measuring", len(sites) * (len(adapters) + 1), "conditions") as advance:
        for site in sites:

            def make(folder: Path, site: str = site) -> None:
                _at(audit, site, advance).write(folder)

            trained = [f"dictionaries/{k.name}" for k in audit.learned.folders if k.site == site]
            name = f"{MEASURES}/{site}"
            what = (name, _depends_on(audit, site))
            if run.current(*what, *_PARENTS, *trained):
                advance(len(adapters) + 1)
            found.add(Measured.read(run.stage(*what, make, *_PARENTS, *trained)))
    return found


def _depends_on(audit: Audit, site: str) -> list[object]:
    study, measures = audit.study, audit.study.measures
    return [
        [measures.rows, measures.repeats, measures.pursuit, list(audit.angles_k)],
        [study.seed, list(study.dictionaries.seeds), audit.learned.marks.get(site)],
        audit.ranks,
    ]


def _at(audit: Audit, site: str, advance: Callable[[int], None]) -> Measured:
    found = Measured()
    _, covariance = mean_and_covariance(audit.probe.chunks(site, BASE))
    _base_pair(audit, site, covariance, found)
    rows = _rows(audit, site)
    _similarity(audit, site, rows, found)
    advance(1)
    for adapter in audit.probe.adapters:
        _condition(audit, _place(audit, site, adapter), rows[adapter], covariance, found)
        advance(1)
    return found


def _rows(audit: Audit, site: str) -> dict[str, HeldOut]:
    """Held-out rows of every adapter: the same tokens, so one base in memory for all."""
    most, found = audit.study.measures.rows, dict[str, HeldOut]()
    for adapter in audit.probe.adapters:
        rows = HeldOut.load(audit.held_out, site, adapter, most)
        first = next(iter(found.values()), rows)
        found[adapter] = replace(rows, base=first.base)
    return found


def _place(audit: Audit, site: str, adapter: str) -> Place:
    return Place(adapter=adapter, rank=audit.ranks[adapter], site=site)


def _similarity(audit: Audit, site: str, rows: Mapping[str, HeldOut], found: Measured) -> None:
    """CKA of all adapters in one pass; one whose rows do not allow it is left out alone."""

    def cka(adapters: Sequence[str]) -> list[Estimate]:
        first = rows[adapters[0]]
        return alignment.site_cka_estimates(
            first.base,
            {adapter: rows[adapter].delta for adapter in adapters},
            first.documents,
            places={adapter: _place(audit, site, adapter) for adapter in adapters},
            repeats=audit.study.measures.repeats,
            seed=audit.study.seed,
        )

    together = Measured()
    if together.attempt(Place(site=site), partial(cka, list(rows))):
        found.add(together)
        return
    for adapter in rows:
        found.attempt(_place(audit, site, adapter), partial(cka, [adapter]))


def _condition(
    audit: Audit,
    place: Place,
    rows: HeldOut,
    base_covariance: Float[Tensor, "d d"],
    found: Measured,
) -> None:
    site, adapter = place.site, place.adapter
    seed, repeats = audit.study.seed, audit.study.measures.repeats
    mean, covariance = mean_and_covariance(audit.probe.chunks(site, adapter))
    found.estimates.extend(norms.norm_estimates(rows, audit.floor[site], place, seed))
    found.estimates.append(norms.rank_estimate(rows, place, seed))
    controls = {
        TRAINED_ON[what]: dictionary
        for what, dictionary in audit.learned.controls(site, adapter).items()
    }
    nulls = alignment.NullSettings(
        covariance,
        base_covariance,
        repeats,
        seed,
        trained={null: alive_directions(each, rows.delta) for null, each in controls.items()},
    )
    control_errors = {
        null: reconstruction.errors(each, rows.delta, rows.documents)
        for null, each in controls.items()
    }
    for dictionary_seed in audit.study.dictionaries.seeds:
        here = replace(place, seed=dictionary_seed)
        base, learned = _dictionaries(audit, here)
        found.estimates.extend(
            _with_dictionaries(audit, here, rows, mean, (base, learned), control_errors)
        )
        if audit.study.measures.pursuit and dictionary_seed == audit.study.dictionaries.seeds[0]:
            pursued = partial(
                pursuit.pursuit_estimates, base, learned, rows, mean, covariance, here, seed
            )
            found.attempt(here, pursued)
        alive = firing.firing(learned, rows.delta).alive
        compared = replace(here, dictionary="delta vs base")
        _aligned(audit, learned, base, compared, nulls, alive, found)
    _delta_pair(audit, place, rows, nulls, found)
    for setting, dictionary in audit.learned.ablation(site, adapter).items():
        there = replace(place, dictionary="delta", setting=setting)
        found.estimates.extend(_ablated(audit, dictionary, rows, mean, there))


def _ablated(
    audit: Audit, dictionary: Dictionary, rows: HeldOut, mean: Float[Tensor, " d"], place: Place
) -> Iterator[Estimate]:
    """Error and L0 of one dictionary of the ablation (table 12)."""
    seed = audit.study.seed
    found = reconstruction.errors(dictionary, rows.delta, rows.documents)
    nulls = reconstruction.null_errors(dictionary, rows, mean, seed)
    fired = firing.firing(dictionary, rows.delta)
    counts = firing.firing_estimates(dictionary, fired, rows.delta, rows.documents, place, seed)
    for estimate in [*reconstruction.error_estimates(found, nulls, place, seed), *counts]:
        yield replace(estimate, measure=f"ablation.{estimate.measure}")


def _dictionaries(audit: Audit, place: Place) -> tuple[Dictionary, Dictionary]:
    """The base dictionary and the delta dictionary of one site, adapter and seed."""
    assert place.seed is not None
    learned = audit.learned
    return (
        learned.base(place.site, place.seed),
        learned.delta(place.site, place.adapter, place.seed),
    )


def _with_dictionaries(
    audit: Audit,
    place: Place,
    rows: HeldOut,
    mean: Float[Tensor, " d"],
    dictionaries: tuple[Dictionary, Dictionary],
    controls: Mapping[str, reconstruction.Errors],
) -> Iterator[Estimate]:
    """Reconstruction, firing and overlap of one pair of base and delta dictionaries."""
    base, learned = dictionaries
    seed = audit.study.seed
    of_base, of_delta = replace(place, dictionary="base"), replace(place, dictionary="delta")

    base_errors = reconstruction.errors(base, rows.delta, rows.documents)
    delta_errors = reconstruction.errors(learned, rows.delta, rows.documents)
    base_nulls = reconstruction.null_errors(base, rows, mean, seed)
    delta_nulls = reconstruction.null_errors(learned, rows, mean, seed)
    delta_nulls += [(null, [errors]) for null, errors in controls.items()]
    yield from reconstruction.error_estimates(base_errors, base_nulls, of_base, seed)
    yield from reconstruction.error_estimates(delta_errors, delta_nulls, of_delta, seed)
    yield from reconstruction.error_estimates(
        reconstruction.difference_errors(base, rows),
        base_nulls,
        replace(place, dictionary="base difference"),
        seed,
    )
    yield reconstruction.improvement(
        base_errors, delta_errors, learned, controls, rows, place, seed
    )
    on_base = firing.firing(base, rows.delta)
    on_delta = firing.firing(learned, rows.delta)
    for dictionary, fired, where in ((base, on_base, of_base), (learned, on_delta, of_delta)):
        yield from firing.firing_estimates(
            dictionary, fired, rows.delta, rows.documents, where, seed
        )
    yield from overlap.overlap_estimates(base, rows, place, seed)


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

    sizes = list(audit.angles_k)
    while sizes and not found.attempt(place, partial(angles, tuple(sizes))):
        # The largest is what the directions do not span.
        sizes.remove(max(sizes))


def _delta_pair(
    audit: Audit, place: Place, rows: HeldOut, nulls: alignment.NullSettings, found: Measured
) -> None:
    """The reference: delta dictionaries of different seeds against each other."""
    for one, other in combinations(audit.study.dictionaries.seeds, 2):
        first = audit.learned.delta(place.site, place.adapter, one)
        second = audit.learned.delta(place.site, place.adapter, other)
        here = replace(place, seed=one, dictionary="delta vs delta")
        alive = firing.firing(first, rows.delta).alive
        _aligned(audit, first, second, here, replace(nulls, trained={}), alive, found)


def _base_pair(audit: Audit, site: str, covariance: Float[Tensor, "d d"], found: Measured) -> None:
    """The upper reference: base dictionaries of different seeds against each other."""
    if site in audit.learned.brought:
        return
    rows = audit.held_out.load(site, BASE)
    nulls = alignment.NullSettings(None, covariance, audit.study.measures.repeats, audit.study.seed)
    for one, other in combinations(audit.study.dictionaries.seeds, 2):
        first, second = audit.learned.base(site, one), audit.learned.base(site, other)
        here = Place(site=site, seed=one, dictionary="base vs base")
        alive = firing.firing(first, rows).alive
        _aligned(audit, first, second, here, nulls, alive, found)


def alive_directions(
    dictionary: Dictionary, rows: Float[Tensor, "rows d"]
) -> Float[Tensor, "alive d"]:
    """Directions of the latents that fire on these rows; all of them where none does."""
    alive = firing.firing(dictionary, rows).alive.to(dictionary.directions.device)
    kept: Tensor = dictionary.directions[alive]
    return kept if len(kept) else torch.as_tensor(dictionary.directions)
