"""Every number of a site a second time, without the stream's massive coordinates and directions.

Two stages a site that has some. `massive/<site>`: what `measuring` finds in rows, deltas and
dictionaries from which they are projected out. `written/<site>`: the directions the adapters write,
for which alone the model is loaded. The keys of their numbers say "without".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from lorascope.activations.massive import Massive
from lorascope.activations.scaling import KnownMoments
from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.alignment import NullSettings
from lorascope.measures.massive import dictionary_without, place_without
from lorascope.measures.written_directions import written_view
from lorascope.results import Estimate
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.learning import RunDictionaries
from lorascope.studies.audit.measuring import PARENTS, SETTINGS, Audit, at_site
from lorascope.studies.audit.state import HELD_OUT, PROBE, SANITY_CHECKS, Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.weights import of_all_modules, written_by_null
from lorascope.studies.audit.yardsticks import massive_at
from lorascope.workflows.measured import Measured
from lorascope.workflows.run_dictionaries import AuditDictionary

STAGE, WRITTEN = "massive", "written"


# What the directions written read of the study.
_WRITTEN_SETTINGS = ("measures.repeats", "seed")


@stage(version=1, title="measuring without massive coordinates")
def measure(work: Work, *, study: AuditStudy, first_seed: int, site: str) -> None:
    """What `measuring.measure` finds without what is massive; nothing where nothing is."""
    audit: Audit = work.state.audit(study, first_seed)
    if not (massive := massive_at(audit, site)):
        Measured().write(work.folder)
        return
    without = audit_without(audit, {site: massive})
    steps = len(audit.probe.adapters) + len(audit.probe.nulls) + 1
    with work.reporter.bar(site, steps, "conditions") as advance:
        numbers = at_site(without, site, advance)
    keyed = [e.at(place_without(e.key)) for e in numbers.estimates]
    Measured(keyed, numbers.warnings).write(work.folder)


@stage(version=1, title="written directions without massive coordinates")
def write(work: Work, *, study: AuditStudy, first_seed: int, site: str) -> None:
    """The directions that adapters write at a site; nothing where nothing is massive."""
    state: Audited = work.state
    audit = state.audit(study, first_seed)
    massive = massive_at(audit, site)
    written = _written(state, audit, site, massive) if massive else ()
    Measured([e.at(place_without(e.key)) for e in written]).write(work.folder)


def stages(study: AuditStudy, site: str, dictionaries: Sequence[str], base: str) -> Iterator[Stage]:
    """The stages `massive/<site>` and, where weights are looked at, `written/<site>`.

    Args:
        dictionaries: stages of all dictionaries of the site.
        base: that of the first seed's base dictionary among them.
    """
    first = study.dictionaries.seeds[0]
    arguments = {"study": study.only(*SETTINGS), "first_seed": first, "site": site}
    yield Stage(f"{STAGE}/{site}", measure, arguments, (*PARENTS, *dictionaries))
    if study.measures.weights:
        arguments = {"study": study.only(*_WRITTEN_SETTINGS), "first_seed": first, "site": site}
        yield Stage(f"{WRITTEN}/{site}", write, arguments, (SANITY_CHECKS, PROBE, HELD_OUT, base))


def audit_without(audit: Audit, massive: Mapping[str, Massive]) -> Audit:
    """The audit of rows and dictionaries from which what is massive is projected out, by site."""
    learned = audit.learned
    brought = {
        site: dictionary_without(each, massive[site]) if site in massive else each
        for site, each in learned.brought.items()
    }
    return replace(
        audit,
        probe=_rows(audit.probe, massive),
        held_out=_rows(audit.held_out, massive),
        learned=_Deaf(learned.folders, brought, massive),
    )


def _rows(shards: Shards, massive: Mapping[str, Massive]) -> _Rows:
    """The same files; their moments are others."""
    return _Rows(**{**vars(shards), "_moments": KnownMoments()}, massive=massive)


@dataclass(frozen=True)
class _Rows(Shards):
    """Rows with what is massive at each site projected out."""

    massive: Mapping[str, Massive] = field(default_factory=dict, repr=False)

    def chunks(
        self, site: str, variant: str, order: Sequence[int] | None = None
    ) -> Iterator[Float[Tensor, "rows d"]]:
        """Kept rows, a shard at a time."""
        found = self.massive.get(site)
        for chunk in super().chunks(site, variant, order):
            yield chunk if found is None else found.without(chunk)


@dataclass(frozen=True)
class _Deaf(RunDictionaries):
    """Dictionaries that neither read nor write what is massive at their site."""

    massive: Mapping[str, Massive] = field(default_factory=dict, repr=False)

    def open(self, key: AuditDictionary) -> Dictionary:
        """One dictionary that was trained here."""
        found = self.massive.get(key.site)
        opened = super().open(key)
        return opened if found is None else dictionary_without(opened, found)


def _written(state: Audited, audit: Audit, site: str, massive: Massive) -> Iterator[Estimate]:
    """How close what the adapters write before the site comes to the base dictionary."""
    seed, repeats = audit.study.seed, audit.study.measures.repeats
    base = audit.learned.base(site, audit.first_seed)
    _, base_covariance = audit.probe.moments(site, BASE)
    for adapter in audit.probe.adapters:
        _, covariance = audit.probe.moments(site, adapter)
        nulls = NullSettings(covariance, base_covariance, repeats, seed)
        here = replace(audit.place(site, adapter), dictionary="base")
        yield from of_all_modules(written_view(state.model, adapter, base, here, nulls, massive))
        for null in audit.variants.nulls_of(adapter):
            yield from of_all_modules(written_by_null(state, audit, null, here, massive))
