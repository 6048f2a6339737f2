"""Every number of an audit, adapter by adapter and site by site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures import alignment, firing, norms, overlap, pursuit, reconstruction
from lorascope.measures.cka import site_cka_estimates
from lorascope.measures.rows import HeldOut
from lorascope.results import GAUSSIAN, Estimate, Key, labels
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.aligning import aligned
from lorascope.studies.audit.learning import RunDictionaries
from lorascope.studies.audit.measuring_draws import of_gaussian, of_null_adapter
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.variants import Variants
from lorascope.workflows.measured import Measured
from lorascope.workflows.settings import Control

MEASURES = "measures"
# What the null of a dictionary trained on a control is called.
TRAINED_ON: dict[Control, str] = {
    "shuffled": "trained on row-shuffled deltas",
    "permuted": "trained on dimension-permuted deltas",
}
PARENTS = ("sanity_checks", "activations/probe", "activations/held_out")
# What the numbers of a site read of the study.
SETTINGS = (
    *("measures.rows", "measures.repeats", "measures.pursuit", "measures.angles_k"),
    *("dictionaries.seeds", "seed"),
)


@dataclass(frozen=True, eq=False)
class Audit:
    """What the measures read.

    Attributes:
        probe, held_out: activations dictionaries were trained on, and those to measure on.
        learned: the dictionaries.
        variants: the adapters and their null adapters.
        floor: numeric noise at each site, stream units.
        first_seed: the dictionaries' first seed, which serves where one does.
    """

    study: AuditStudy
    probe: Shards
    held_out: Shards
    learned: RunDictionaries
    variants: Variants
    floor: dict[str, float]
    first_seed: int

    def place(self, site: str, adapter: str) -> Key:
        """The key of an adapter's, or a null adapter's, numbers at a site."""
        return replace(self.variants.keys[adapter], site=site)

    @property
    def angles_k(self) -> tuple[int, ...]:
        """Subspace dimensions; a quarter of the stream's width, at most 256, by default."""
        return self.study.measures.angles_k or (max(1, min(256, self.probe.d_model // 4)),)


@stage(version=1, title="measuring sites")
def measure(work: Work, *, study: AuditStudy, first_seed: int, site: str) -> None:
    """All estimates of one site; one that cannot be computed does not take the others with it."""
    audit: Audit = work.state.audit(study, first_seed)
    steps = len(audit.probe.adapters) + len(audit.probe.nulls) + 1
    with work.reporter.bar(site, steps, "conditions") as advance:
        at_site(audit, site, advance).write(work.folder)


def stages(study: AuditStudy, site: str, dictionaries: Sequence[str]) -> Iterator[Stage]:
    """The stage `measures/<site>`.

    Args:
        dictionaries: stages of all dictionaries of the site.
    """
    arguments = {"study": study.only(*SETTINGS), "first_seed": study.dictionaries.seeds[0]}
    arguments |= {"site": site}
    yield Stage(f"{MEASURES}/{site}", measure, arguments, (*PARENTS, *dictionaries))


def at_site(audit: Audit, site: str, advance: Callable[[int], None]) -> Measured:
    """All estimates of one site; `advance` hears of every condition."""
    found = Measured()
    _, covariance = audit.probe.moments(site, BASE)
    _base_pair(audit, site, covariance, found)
    rows = _rows(audit, site)
    _similarity(audit, site, rows, found)
    advance(1)
    for adapter in audit.probe.adapters:
        place, own = audit.place(site, adapter), rows[adapter]
        active = _condition(audit, place, own, covariance, found)
        for draw, dictionary in enumerate(audit.learned.gaussian(site, adapter)):
            drawn = replace(place, seed=audit.first_seed, null=GAUSSIAN, draw=draw)
            of_gaussian(audit, drawn, own, dictionary, active, found)
        advance(1)
        for null in audit.variants.nulls_of(adapter):
            of_null_adapter(audit, site, null, own.base, active, found)
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


def _similarity(audit: Audit, site: str, rows: Mapping[str, HeldOut], found: Measured) -> None:
    """CKA of all adapters in one pass; one whose rows do not allow it is left out alone."""

    def similarity(adapters: Sequence[str]) -> list[Estimate]:
        first = rows[adapters[0]]
        return site_cka_estimates(
            first.base,
            {adapter: rows[adapter].delta for adapter in adapters},
            first.documents,
            places={adapter: audit.place(site, adapter) for adapter in adapters},
            repeats=audit.study.measures.repeats,
            seed=audit.study.seed,
        )

    together = Measured()
    if together.attempt(Key(site=site), partial(similarity, list(rows))):
        found.add(together)
        return
    for adapter in rows:
        found.attempt(audit.place(site, adapter), partial(similarity, [adapter]))


def _condition(
    audit: Audit,
    place: Key,
    rows: HeldOut,
    base_covariance: Float[Tensor, "d d"],
    found: Measured,
) -> Mapping[str, int]:
    """Every number of one adapter at one site.

    Returns:
        active latents a row of its base and delta dictionaries, which pursuit is given.
    """
    site, adapter = place.site, place.adapter
    seed, repeats = audit.study.seed, audit.study.measures.repeats
    mean, covariance = audit.probe.moments(site, adapter)
    found.estimates.extend(norms.norm_estimates(rows, audit.floor[site], place))
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
    active: Mapping[str, int] = {}
    for dictionary_seed in audit.study.dictionaries.seeds:
        here = replace(place, seed=dictionary_seed)
        base, learned = dictionaries(audit, here, adapter)
        found.estimates.extend(
            _with_dictionaries(audit, here, rows, mean, (base, learned), control_errors)
        )
        if dictionary_seed == audit.first_seed:
            active = pursuit.active_latents(base, learned, rows, seed)
            if audit.study.measures.pursuit:
                pursued = partial(
                    pursuit.pursuit_estimates,
                    *(base, learned, rows, mean, covariance, here, seed),
                    active=active,
                )
                found.attempt(here, pursued)
        alive = firing.firing(learned, rows.delta).alive
        compared = replace(here, **labels.DELTA_VS_BASE._asdict())
        aligned(audit.angles_k, learned, base, compared, nulls, alive, found)
    _delta_pair(audit, place, rows, nulls, found)
    for setting, dictionary in audit.learned.ablation(site, adapter).items():
        there = replace(place, dictionary=labels.DELTA, setting=setting)
        found.estimates.extend(_ablated(audit, dictionary, rows, mean, there))
    return active


def _ablated(
    audit: Audit, dictionary: Dictionary, rows: HeldOut, mean: Float[Tensor, " d"], place: Key
) -> Iterator[Estimate]:
    """Error and L0 of one dictionary of the ablation (table 12)."""
    seed = audit.study.seed
    found = reconstruction.errors(dictionary, rows.delta, rows.documents)
    nulls = reconstruction.null_errors(dictionary, rows, mean, seed)
    fired = firing.firing(dictionary, rows.delta)
    counts = firing.firing_estimates(dictionary, fired, rows.delta, rows.documents, place, seed)
    for estimate in [*reconstruction.error_estimates(found, nulls, place), *counts]:
        yield replace(estimate, measure=f"ablation.{estimate.measure}")


def dictionaries(audit: Audit, place: Key, variant: str) -> tuple[Dictionary, Dictionary]:
    """The base dictionary and the delta dictionary of one site, seed and adapter or null."""
    assert place.seed is not None
    learned = audit.learned
    return learned.base(place.site, place.seed), learned.delta(place.site, variant, place.seed)


def _with_dictionaries(
    audit: Audit,
    place: Key,
    rows: HeldOut,
    mean: Float[Tensor, " d"],
    dictionaries: tuple[Dictionary, Dictionary],
    controls: Mapping[str, reconstruction.Errors],
) -> Iterator[Estimate]:
    """Reconstruction, firing and overlap of one pair of base and delta dictionaries."""
    base, learned = dictionaries
    seed = audit.study.seed
    of_base, of_delta = (
        replace(place, dictionary=labels.BASE),
        replace(place, dictionary=labels.DELTA),
    )

    base_errors = reconstruction.errors(base, rows.delta, rows.documents)
    delta_errors = reconstruction.errors(learned, rows.delta, rows.documents)
    base_nulls = reconstruction.null_errors(base, rows, mean, seed)
    delta_nulls = reconstruction.null_errors(learned, rows, mean, seed)
    delta_nulls += [(null, [errors]) for null, errors in controls.items()]
    yield from reconstruction.error_estimates(base_errors, base_nulls, of_base)
    yield from reconstruction.error_estimates(delta_errors, delta_nulls, of_delta)
    yield from reconstruction.error_estimates(
        reconstruction.difference_errors(base, rows),
        base_nulls,
        replace(place, dictionary=labels.BASE_DIFFERENCE),
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


def _delta_pair(
    audit: Audit, place: Key, rows: HeldOut, nulls: alignment.NullSettings, found: Measured
) -> None:
    """The reference: delta dictionaries of different seeds against each other."""
    for one, other in combinations(audit.study.dictionaries.seeds, 2):
        first = audit.learned.delta(place.site, place.adapter, one)
        second = audit.learned.delta(place.site, place.adapter, other)
        here = replace(place, seed=one, **labels.DELTA_SEEDS._asdict())
        alive = firing.firing(first, rows.delta).alive
        aligned(audit.angles_k, first, second, here, replace(nulls, trained={}), alive, found)


def _base_pair(audit: Audit, site: str, covariance: Float[Tensor, "d d"], found: Measured) -> None:
    """The upper reference: base dictionaries of different seeds against each other."""
    if site in audit.learned.brought:
        return
    rows = audit.held_out.load(site, BASE)
    nulls = alignment.NullSettings(None, covariance, audit.study.measures.repeats, audit.study.seed)
    for one, other in combinations(audit.study.dictionaries.seeds, 2):
        first, second = audit.learned.base(site, one), audit.learned.base(site, other)
        here = Key(site=site, seed=one, **labels.BASE_SEEDS._asdict())
        alive = firing.firing(first, rows).alive
        aligned(audit.angles_k, first, second, here, nulls, alive, found)


def alive_directions(
    dictionary: Dictionary, rows: Float[Tensor, "rows d"]
) -> Float[Tensor, "alive d"]:
    """Directions of the latents that fire on these rows; all of them where none does."""
    alive = firing.firing(dictionary, rows).alive.to(dictionary.directions.device)
    kept: Tensor = dictionary.directions[alive]
    return kept if len(kept) else torch.as_tensor(dictionary.directions)
