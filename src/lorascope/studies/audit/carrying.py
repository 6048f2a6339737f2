"""Which latents carry the phrases of each adapter: a stage an adapter, after its dictionaries."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.models.sites import parse_site
from lorascope.reading.carried import write_carriers
from lorascope.reading.carriers import latent_carriers
from lorascope.reading.removing import Reads
from lorascope.reading.result import Read
from lorascope.reading.running import prompts_for
from lorascope.reading.settings import Reading
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.measuring import PARENTS
from lorascope.studies.audit.readings import CARRIERS, READ, settings_of
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.run_dictionaries import DICTIONARIES, brought_at


@stage(version=3, title="who carries the phrases")
def carry(
    work: Work, *, study: AuditStudy, adapter: str, settings: Reading, first_seed: int
) -> None:
    """What is left of an adapter's phrases without latents of its dictionaries of a seed."""
    state: Audited = work.state
    audit, found = state.audit(study, first_seed), Read.load(work.input(f"{READ}/{adapter}"))
    reads = []
    for site in audit.probe.sites:
        place = parse_site(site)
        delta = audit.learned.delta(site, adapter, first_seed)
        base = audit.learned.base(site, first_seed)
        reads += [Reads(place, delta, "delta"), Reads(place, base, "base")]
    title = f"who carries the phrases of {adapter}"
    with work.reporter.bar(title, 3 * settings.tokens, "tokens of each") as advance:
        prompts = prompts_for(state.model, settings)
        carried = latent_carriers(state.model, found, prompts, reads, settings, advance)
    write_carriers(carried, work.folder)


def stages(state: Audited) -> Iterator[Stage]:
    """One stage an adapter, `carriers/<adapter>`, where the study asks for that."""
    study, seed = state.study, state.study.dictionaries.seeds[0]
    if study.reading is None or not study.reading.carriers:
        return
    arguments = {"study": study.only("seed"), "settings": settings_of(study), "first_seed": seed}
    for adapter in state.adapters:
        used = [
            f"{DICTIONARIES}/{key.name}"
            for key in state.wanted
            if key.seed == seed and key.target in ("base", "delta")
            if not key.setting and key.adapter in ("", adapter)
        ]
        used += [brought_at(site) for site in state.brought]
        inputs = (*PARENTS, f"{READ}/{adapter}", *used)
        yield Stage(f"{CARRIERS}/{adapter}", carry, {"adapter": adapter, **arguments}, inputs)
