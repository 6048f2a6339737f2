"""Numbers weighted by energy a second time, without a stream's massive coordinates and directions.

One stage a site that has some, `massive/<site>`; the keys of its numbers say "without".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from lorascope.activations.massive import Massive
from lorascope.activations.scaling import mean_and_covariance
from lorascope.activations.shards import BASE
from lorascope.measures import massive as without
from lorascope.measures.alignment import NullSettings
from lorascope.measures.reconstruction import NULL_REPEATS, Errors
from lorascope.measures.rows import HeldOut
from lorascope.measures.weights import ALL
from lorascope.measures.written import written_view
from lorascope.results import Estimate, Key
from lorascope.workflows.measured import Measured
from lorascope.workflows.measuring import TRAINED_ON, Audit
from lorascope.workflows.state import Audited
from lorascope.workflows.yardsticks import massive_at

STAGE = "massive"


def take_massive(state: Audited, audit: Audit) -> Measured:
    """Size, rank, CKA, relative errors and written directions without what is massive.

    Sites where nothing is massive have no such numbers. Of null adapters the numbers alone, for
    the adapters' to be held against.
    """
    study, found = state.study, Measured()
    for site in audit.probe.sites:
        massive = massive_at(audit, site)
        if not massive:
            continue
        trained = [f"dictionaries/{key.name}" for key in audit.learned.folders if key.site == site]
        depends_on = [
            [study.measures.rows, study.measures.repeats, study.measures.weights, study.seed],
            [list(study.dictionaries.seeds), study.dictionaries.base.get(site)],
        ]

        def make(folder: Path, site: str = site, massive: Massive = massive) -> None:
            _at(state, audit, site, massive).write(folder)

        parents = ("gates", "activations/probe", "activations/held_out", *trained)
        found.add(Measured.read(state.run.stage(f"{STAGE}/{site}", depends_on, make, *parents)))
    return found


def _at(state: Audited, audit: Audit, site: str, massive: Massive) -> Measured:
    found, study = Measured(), audit.study
    _, base_covariance = mean_and_covariance(audit.probe.chunks(site, BASE))
    for name, key in audit.variants.keys.items():
        place, given = replace(key, site=site), key.draw is None
        repeats = study.measures.repeats if given else 0
        rows = HeldOut.load(audit.held_out, site, name, study.measures.rows)
        found.estimates.extend(
            without.size_estimates(rows, massive, audit.floor[site], place, study.seed)
        )
        cka = partial(
            without.cka_estimates,
            *(rows.base, {name: rows.delta}, rows.documents, massive, {name: place}),
            repeats=repeats,
            seed=study.seed,
        )
        found.attempt(place, cka)
        found.estimates.extend(_errors(audit, name, place, rows, massive))
        if study.measures.weights and given:
            _, covariance = mean_and_covariance(audit.probe.chunks(site, name))
            nulls = NullSettings(covariance, base_covariance, repeats, study.seed)
            found.estimates.extend(_written(state, audit, name, place, nulls, massive))
    return found


def _errors(
    audit: Audit, name: str, place: Key, rows: HeldOut, massive: Massive
) -> Iterator[Estimate]:
    """Relative errors of base and delta dictionary, of every seed the adapter has both of."""
    mean, _ = mean_and_covariance(audit.probe.chunks(place.site, name))
    seeds = audit.study.dictionaries.seeds if place.draw is None else (audit.first_seed,)
    controls: Mapping[str, Errors] = {
        TRAINED_ON[what]: without.errors_without(each, rows.delta, rows.documents, massive)
        for what, each in audit.learned.controls(place.site, name).items()
    }
    for seed in seeds:
        here = replace(place, seed=seed)
        base = audit.learned.base(place.site, seed)
        delta = audit.learned.delta(place.site, name, seed)
        for label, each, nulls in (("base", base, None), ("delta", delta, controls)):
            yield from without.error_estimates(
                *(each, rows, mean, massive, replace(here, dictionary=label), nulls),
                seed=audit.study.seed,
                repeats=NULL_REPEATS if place.draw is None else 0,
            )


def _written(
    state: Audited, audit: Audit, name: str, place: Key, nulls: NullSettings, massive: Massive
) -> Iterator[Estimate]:
    base = audit.learned.base(place.site, audit.first_seed)
    here = replace(place, dictionary="base")
    view = written_view(state.model, name, base, here, nulls, massive)
    for estimate in view.estimates:
        if estimate.key.setting == ALL:
            yield replace(estimate, key=replace(estimate.key, setting=""))
