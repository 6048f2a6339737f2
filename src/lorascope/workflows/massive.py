"""Every number of a site a second time, without the stream's massive coordinates and directions.

Two stages a site that has some. `massive/<site>`: what `measuring` finds in rows, deltas and
dictionaries from which they are projected out. `written/<site>`: the directions the adapters write,
for which alone the model is loaded. The keys of their numbers say "without".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lorascope.activations.massive import Massive
from lorascope.activations.scaling import KnownMoments
from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.alignment import NullSettings
from lorascope.measures.massive import dictionary_without, place_without
from lorascope.measures.written import written_view
from lorascope.results import Estimate
from lorascope.workflows.learning import Learned, Wanted
from lorascope.workflows.measured import Measured
from lorascope.workflows.measuring import Audit, at_site, depends_on
from lorascope.workflows.state import Audited
from lorascope.workflows.weighing import of_all_modules, written_by_null
from lorascope.workflows.yardsticks import massive_at

STAGE, WRITTEN = "massive", "written"


def take_massive(state: Audited, audit: Audit) -> Measured:
    """What `measuring.measure` finds, and the directions written, without what is massive.

    Sites where nothing is massive have no such numbers.
    """
    found, weights = Measured(), state.study.measures.weights
    massive = {site: massive_at(audit, site) for site in audit.probe.sites}
    massive = {site: one for site, one in massive.items() if one}
    if not massive:
        return found
    without = audit_without(audit, massive)
    variants = len(audit.probe.adapters) + len(audit.probe.nulls) + 1
    title = "measuring without massive coordinates"
    with state.reporter.bar(title, len(massive) * variants, "conditions") as advance:
        for site, one in massive.items():

            def make(folder: Path, site: str = site, one: Massive = one) -> None:
                numbers = at_site(without, site, advance)
                keyed = [e.at(place_without(e.key)) for e in numbers.estimates]
                Measured(keyed, numbers.warnings).write(folder)

            what = (f"{STAGE}/{site}", depends_on(audit, site))
            trained = [f"dictionaries/{k.name}" for k in audit.learned.folders if k.site == site]
            parents = ("gates", "activations/probe", "activations/held_out", *trained)
            if state.run.current(*what, *parents):
                advance(variants)
            found.add(Measured.read(state.run.stage(*what, make, *parents)))
            if weights:
                found.add(Measured.read(_written_stage(state, audit, site, one)))
    return found


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
        self, site: str, face: str, order: Sequence[int] | None = None
    ) -> Iterator[Float[Tensor, "rows d"]]:
        """Kept rows, a shard at a time."""
        found = self.massive.get(site)
        for chunk in super().chunks(site, face, order):
            yield chunk if found is None else found.without(chunk)


@dataclass(frozen=True)
class _Deaf(Learned):
    """Dictionaries that neither read nor write what is massive at their site."""

    massive: Mapping[str, Massive] = field(default_factory=dict, repr=False)

    def open(self, key: Wanted) -> Dictionary:
        """One dictionary that was trained here."""
        found = self.massive.get(key.site)
        opened = super().open(key)
        return opened if found is None else dictionary_without(opened, found)


def _written_stage(state: Audited, audit: Audit, site: str, massive: Massive) -> Path:
    def make(folder: Path) -> None:
        written = _written(state, audit, site, massive)
        Measured([e.at(place_without(e.key)) for e in written]).write(folder)

    seeds = [state.study.seed, audit.first_seed]
    depends_on = [
        *seeds,
        audit.probe.nulls,
        state.study.measures.repeats,
        audit.learned.marks.get(site),
    ]
    base = Wanted("base", site, "", audit.first_seed)
    trained = [f"dictionaries/{base.name}"] if base in audit.learned.folders else []
    parents = ("gates", "activations/probe", *trained)
    return state.run.stage(f"{WRITTEN}/{site}", depends_on, make, *parents)


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
