"""The audit: its stages, and what is found in them put together.

1. Train adapters, where the study asks for that; a first look, which the page shows at once.
2. Read the texts, leave out what the adapters have seen, split by hash.
3. Check that adapters are live and deltas stand above numeric noise; samples. Read the adapters.
4. Capture the base and every delta, to train on and to measure on; there response losses too.
5. Train dictionaries.
6. Measure: geometry and reconstruction site by site, effects on the outputs adapter by adapter,
   the weights.
7. Write the results table, make the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lorascope.activations.collect import collect
from lorascope.activations.settings import Capture
from lorascope.activations.shards import Shards
from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.fits.wrapper import identity as identity_of
from lorascope.measures.massive import judged_without
from lorascope.measures.null_draws import beside_draws
from lorascope.measures.seeds import condition_shares
from lorascope.measures.yardsticks import without_verdicts
from lorascope.progress import Reporter
from lorascope.report.result import write_estimates
from lorascope.report.seeds import write_seeds
from lorascope.runs import Run, write_json
from lorascope.stages import Graph, Stage, Work, record_of, stage
from lorascope.studies.audit import (
    browsing,
    carrying,
    drifting,
    effects,
    glancing,
    learning,
    massive,
    measuring,
    readings,
    sanity_checks,
    weights,
    yardsticks,
)
from lorascope.studies.audit import plan as planning
from lorascope.studies.audit.facts import facts
from lorascope.studies.audit.responses import losses_of, read_losses, write_losses
from lorascope.studies.audit.sections.early import write_early
from lorascope.studies.audit.state import HELD_OUT, MATCHING, PROBE, Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows import adapters
from lorascope.workflows.cost import Cost
from lorascope.workflows.measured import Measured
from lorascope.workflows.run_dictionaries import DICTIONARIES, AuditDictionary, brought_at
from lorascope.workflows.running import Workflow

RESULTS = "results"


def _show_what_is_known(run: Run, state: Audited, graph: Graph, cost: Cost) -> None:
    run.followed = partial(_page_fills, run.folder, len(graph), state.reporter)
    run.passing.add(glancing.GLANCE)


def _page_fills(
    out: Path, total: int, reporter: Reporter, records: Mapping[str, Mapping[str, Any]]
) -> None:
    """Make the page anew while stages are still to come; the finished one is made at the end."""
    shown = (out / "report" / "index.html").is_file()
    if RESULTS in records or (shown and (out / RESULTS).is_dir()):
        return
    page = write_early(out, len(records), total)
    if page is not None and not shown:
        reporter.say(f"{page} shows what is known so far")


def stages(state: Audited) -> Iterator[Stage]:
    """Every stage of an audit, each after those it reads."""
    study, found = state.study, list[Stage]()
    for one in _stages(state):
        found.append(one)
        yield one
    arguments = {"study": study, "groups": study.groups}
    yield Stage(RESULTS, put_together, arguments, tuple(one.name for one in found))


def _stages(state: Audited) -> Iterator[Stage]:
    study, first = state.study, state.study.dictionaries.seeds[0]
    if study.train is not None:
        yield from state.training.stages()
    yield from glancing.stages(state)
    yield from sanity_checks.stages(state)
    yield from readings.stages(state)
    yield from _captures(state)
    marks = {site: identity_of(one) for site, one in state.brought.items()}
    yield from learning.stages(study, state.wanted, marks)
    bases: dict[str, str] = {}
    for site in (site.name for site in state.sites):
        own = [f"{DICTIONARIES}/{key.name}" for key in state.wanted if key.site == site]
        if site in marks:
            own.append(brought_at(site))
        of_seeds = _bases(study, site, site in marks)
        bases[site] = of_seeds[None if site in marks else first]
        yield from yardsticks.stages(study, site, own, of_seeds)
        yield from measuring.stages(study, site, own)
        yield from massive.stages(study, site, own, bases[site])
    yield from effects.stages(state)
    yield from browsing.stages(state, bases)
    yield from carrying.stages(state)
    yield from drifting.stages(state)
    yield from weights.stages(study, list(bases.values()))


def _bases(study: AuditStudy, site: str, brought: bool) -> dict[int | None, str]:
    """{seed: stage of the base dictionary there}; without a seed the one that was brought."""
    if brought:
        return {None: brought_at(site)}
    wanted = [AuditDictionary("base", site, "", seed) for seed in study.dictionaries.seeds]
    return {one.seed: f"{DICTIONARIES}/{one.name}" for one in wanted}


def _captures(state: Audited) -> Iterator[Stage]:
    trained = tuple(f"{adapters.ADAPTERS}/{name}" for name in state.trained)
    before = (MATCHING,) if state.matched_on else trained
    for name, documents in ((PROBE, state.texts.probe), (HELD_OUT, state.texts.held_out)):
        yield Stage(name, capture, {"identity": state.identity(documents)}, before)


@stage(version=1, title="capturing activations")
def capture(work: Work, *, identity: dict[str, Any]) -> None:
    """The base's stream and every delta on one side of the texts.

    The passes of the held-out texts give the adapters' response losses too.

    Args:
        identity: what they depend on, beside the adapters and null adapters read.
    """
    state: Audited = work.state
    probe = work.stage.name == PROBE
    windows = state.probe if probe else state.held_out
    state.require_tokens()
    # The adapters trained here are known by what made them.
    made = {name: record_of(work.input(name))["key"] for name in work.stage.inputs}
    settings = Capture.parse(identity["capture"], "capture")
    title = "training texts" if probe else "held-out texts"
    losses = None if probe else losses_of(windows)
    with work.reporter.bar(title, sum(len(w.ids) for w in windows), "tokens") as advance:
        collect(
            state.model,
            windows,
            state.sites,
            work.folder,
            settings,
            digest([identity, made]),
            whole=None if losses is None else losses.take,
            advance=advance,
        )
    if losses is not None:
        write_losses(losses, state.model, work.folder)
    found = Shards.open(work.folder)
    kept = len(found)
    if probe and kept < learning.batched(state.study.dictionaries.fitting, found).batch:
        raise InputError(
            f"{kept} tokens are left to train on once special tokens and outliers are masked; "
            "give more text"
        )


@stage(version=2, title="putting results together")
def put_together(work: Work, *, study: AuditStudy, groups: dict[str, str]) -> None:
    """The results table and all that the report says beside it.

    Args:
        groups: {adapter: what it shares with those that differ in their seed alone}.
    """
    state: Audited = work.state
    whole = state.audit(study, study.dictionaries.seeds[0])
    found = yardsticks.judge_dictionaries(state, whole)
    measured = Measured(read_losses(work.input(HELD_OUT)))
    measured.add(found.measured)
    for name in _measured_in(state, work.stage.inputs):
        measured.add(Measured.read(work.input(name)))
    measured.estimates.extend(readings.estimates_of(state))
    measured.warnings.extend(browsing.without_latents(work.run))
    judged = without_verdicts(judged_without(beside_draws(measured.estimates)), found.verdicts)
    own = [e for e in judged if e.key.draw is None]
    write_estimates([*judged, *condition_shares(own, groups)], work.folder)
    write_seeds(own, groups, work.folder)
    records = {name: record_of(work.input(name)) for name in work.stage.inputs}
    record = facts(state, whole.learned.facts(), records)
    record["warnings"] += measured.told
    record["yardsticks"] = [verdict.record() for verdict in found.verdicts]
    record["massive"] = found.massive
    record["read"] = readings.facts_of(state)
    record["drift"] = drifting.facts_of(state)
    write_json(work.folder / "facts.json", record)


def _measured_in(state: Audited, inputs: tuple[str, ...]) -> list[str]:
    """Stages that hold estimates, in the order in which they stand in the results."""
    sites = [site.name for site in state.sites]
    names = [f"{measuring.MEASURES}/{site}" for site in sites]
    names += [f"{kind}/{site}" for site in sites for kind in (massive.STAGE, massive.WRITTEN)]
    names += [f"{effects.EFFECTS}/{adapter}" for adapter in state.adapters]
    return [name for name in (*names, weights.WEIGHTS) if name in inputs]


AUDIT = Workflow("audit", AuditStudy, planning.plan, Audited, stages, _show_what_is_known)
