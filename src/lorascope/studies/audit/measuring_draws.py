"""Numbers of the audit's nulls: random adapters, and dictionaries trained on Gaussian rows.

They go through what the adapters go through. Their numbers have no chance levels of their own:
they are the draws of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures import alignment, cka, firing, norms, overlap, pursuit, reconstruction
from lorascope.measures.rows import HeldOut
from lorascope.results import Estimate, Key, labels
from lorascope.studies.audit.aligning import aligned
from lorascope.workflows.measured import Measured

if TYPE_CHECKING:
    from lorascope.studies.audit.measuring import Audit


def of_null_adapter(
    audit: Audit,
    site: str,
    null: str,
    base_rows: Float[Tensor, "rows d"],
    active: Mapping[str, int],
    found: Measured,
) -> None:
    """Every number of one null adapter at one site, dictionaries of the first seed.

    Args:
        base_rows: of the held-out tokens, the same for all variants.
        active: k that the adapter's own pursuit was given.
    """
    rows = replace(
        HeldOut.load(audit.held_out, site, null, audit.study.measures.rows), base=base_rows
    )
    place, seed = audit.place(site, null), audit.study.seed
    found.estimates.extend(norms.norm_estimates(rows, audit.floor[site], place))
    found.estimates.append(norms.rank_estimate(rows, place, seed))
    found.attempt(place, partial(_similarity, rows, place, seed))
    here = replace(place, seed=audit.first_seed)
    base = audit.learned.base(site, audit.first_seed)
    learned = audit.learned.delta(site, null, audit.first_seed)
    base_errors = reconstruction.errors(base, rows.delta, rows.documents)
    of_base = replace(here, dictionary=labels.BASE)
    found.estimates.extend(reconstruction.error_estimates(base_errors, [], of_base))
    found.estimates.extend(
        reconstruction.error_estimates(
            reconstruction.difference_errors(base, rows),
            [],
            replace(here, dictionary=labels.BASE_DIFFERENCE),
        )
    )
    fired = firing.firing(base, rows.delta)
    found.estimates.extend(
        firing.firing_estimates(base, fired, rows.delta, rows.documents, of_base, seed, repeats=0)
    )
    found.estimates.extend(overlap.overlap_estimates(base, rows, here, seed, repeats=0))
    found.estimates.extend(_of_delta_dictionary(learned, base_errors, rows, here, seed))
    if audit.study.measures.pursuit:
        mean, covariance = audit.probe.moments(site, null)
        found.attempt(
            here,
            partial(
                pursuit.pursuit_estimates,
                *(base, learned, rows, mean, covariance, here, seed),
                repeats=0,
                active=active,
            ),
        )
    _directions(audit, learned, base, rows, here, found)


def of_gaussian(
    audit: Audit,
    place: Key,
    rows: HeldOut,
    dictionary: Dictionary,
    active: Mapping[str, int],
    found: Measured,
) -> None:
    """What depends on the delta dictionary, with one trained on Gaussian rows in its place.

    Args:
        rows: of the adapter.
    """
    seed, base = audit.study.seed, audit.learned.base(place.site, audit.first_seed)
    base_errors = reconstruction.errors(base, rows.delta, rows.documents)
    found.estimates.extend(_of_delta_dictionary(dictionary, base_errors, rows, place, seed))
    if audit.study.measures.pursuit:
        found.attempt(
            place, partial(pursuit.direction_estimates, dictionary, rows, place, seed, active)
        )
    _directions(audit, dictionary, base, rows, place, found)


def _similarity(rows: HeldOut, place: Key, seed: int) -> list[Estimate]:
    return cka.site_cka_estimates(
        rows.base,
        {place.adapter: rows.delta},
        rows.documents,
        places={place.adapter: place},
        repeats=0,
        seed=seed,
    )


def _of_delta_dictionary(
    learned: Dictionary,
    base_errors: reconstruction.Errors,
    rows: HeldOut,
    place: Key,
    seed: int,
) -> Iterator[Estimate]:
    here = replace(place, dictionary=labels.DELTA)
    errors = reconstruction.errors(learned, rows.delta, rows.documents)
    yield from reconstruction.error_estimates(errors, [], here)
    yield reconstruction.improvement(base_errors, errors, learned, {}, rows, place, seed, repeats=0)
    fired = firing.firing(learned, rows.delta)
    yield from firing.firing_estimates(
        learned, fired, rows.delta, rows.documents, here, seed, repeats=0
    )


def _directions(
    audit: Audit,
    learned: Dictionary,
    base: Dictionary,
    rows: HeldOut,
    place: Key,
    found: Measured,
) -> None:
    alive = firing.firing(learned, rows.delta).alive
    compared = replace(place, **labels.DELTA_VS_BASE._asdict())
    nulls = alignment.NullSettings(repeats=0)
    aligned(audit.angles_k, learned, base, compared, nulls, alive, found)
