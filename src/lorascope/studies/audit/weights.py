"""What the adapters did to the weights, as one stage: module by module, and written directions.

Null adapters write too: their directions are the rival of the adapters'. Of the other numbers most
are a null adapter's by construction, its singular values are the adapter's; intruders and alignment
have random updates of those beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lorascope.activations.massive import Massive
from lorascope.activations.shards import BASE
from lorascope.measures.alignment import NullSettings
from lorascope.measures.weights import WeightSettings, weights_table, weights_view
from lorascope.measures.written_directions import WrittenView, written_view
from lorascope.models.other_changes import summed_up
from lorascope.progress import Advance
from lorascope.results import Estimate, Key
from lorascope.results.labels import ALL_MODULES
from lorascope.runs import write_atomically
from lorascope.spreadsheets import csv_text
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.measuring import Audit
from lorascope.studies.audit.state import HELD_OUT, PROBE, SANITY_CHECKS, Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.measured import Measured

WEIGHTS = "weights"
TABLES = ("modules", "spectra", "written")


# What the weights' view reads of the study.
_SETTINGS = ("measures.repeats", "seed")


@stage(version=1, title="weights: norms, spectra, intruder dimensions")
def weigh(work: Work, *, study: AuditStudy, first_seed: int) -> None:
    """Norms, spectra, intruders of every adapted module, and what it writes into the stream.

    The estimates are those of all modules together; those of each module and block stand in the
    stage's tables.
    """
    audit: Audit = work.state.audit(study, first_seed)
    steps = 1 + len(audit.probe.sites) * (len(audit.probe.adapters) + len(audit.probe.nulls))
    with work.reporter.bar("weights", steps, "views") as advance:
        _weigh(work.state, audit, work.folder, advance).write(work.folder)


def stages(study: AuditStudy, bases: Sequence[str]) -> Iterator[Stage]:
    """The stage `weights`, where the study asks for it.

    Args:
        bases: stages of the first seed's base dictionaries.
    """
    if study.measures.weights:
        first = study.dictionaries.seeds[0]
        arguments = {"study": study.only(*_SETTINGS), "first_seed": first}
        yield Stage(WEIGHTS, weigh, arguments, (SANITY_CHECKS, PROBE, HELD_OUT, *bases))


def _weigh(state: Audited, audit: Audit, folder: Path, advance: Advance) -> Measured:
    measures, seed, found = audit.study.measures, audit.study.seed, Measured()
    view = weights_view(state.model, settings=WeightSettings(repeats=measures.repeats, seed=seed))
    found.estimates.extend(e for e in view.estimates if e.key.module == ALL_MODULES)
    found.warnings.extend(
        f"{name}: the numbers about weights leave out {summed_up(changes)}"
        for name, changes in view.left_out.items()
        if changes
    )
    advance(1)
    written = []
    for site in audit.probe.sites:
        base = audit.learned.base(site, audit.first_seed)
        _, base_covariance = audit.probe.moments(site, BASE)
        for adapter in audit.probe.adapters:
            _, covariance = audit.probe.moments(site, adapter)
            nulls = NullSettings(covariance, base_covariance, measures.repeats, seed)
            place = replace(audit.variants.keys[adapter], site=site, dictionary="base")
            one = written_view(state.model, adapter, base, place, nulls)
            written.append(one.directions)
            found.estimates.extend(of_all_modules(one))
            advance(1)
            for null in audit.variants.nulls_of(adapter):
                found.estimates.extend(of_all_modules(written_by_null(state, audit, null, place)))
                advance(1)
    modules = weights_table(view.estimates)
    for name, table in zip(TABLES, (modules, view.spectra, pd.concat(written)), strict=True):
        write_atomically(folder / f"{name}.csv", csv_text(table))
    return found


def written_by_null(
    state: Audited, audit: Audit, null: str, place: Key, massive: Massive | None = None
) -> WrittenView:
    """What a null adapter writes, as for its adapter at `place`, without chance levels."""
    base = audit.learned.base(place.site, audit.first_seed)
    drawn = replace(place, null=audit.variants.keys[null].null, draw=audit.variants.keys[null].draw)
    return written_view(state.model, null, base, drawn, NullSettings(repeats=0), massive)


def of_all_modules(view: WrittenView) -> Iterator[Estimate]:
    """The numbers of all modules together, which need no module in their keys."""
    for estimate in view.estimates:
        if estimate.key.module == ALL_MODULES:
            yield replace(estimate, key=replace(estimate.key, module=""))
