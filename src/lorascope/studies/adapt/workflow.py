"""Adapt: its stages, and what is found in them put together.

1. Read the texts, split by hash: some to train and fit on, the rest to measure on.
2. Train dictionaries, or look at those brought along.
3. Fit what the experiments ask for around them, one stage a fit, each with its numbers.
4. How far the streams behind the site are from the original's; steering; loss against training
   time.
5. Write the results table, make the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lorascope.measures.adapting import bounded
from lorascope.progress import Reporter
from lorascope.report.result import write_estimates
from lorascope.report.seeds import write_seeds
from lorascope.runners import Runner
from lorascope.runners.local import run_here
from lorascope.runs import Run, write_atomically
from lorascope.stages import Graph, Stage, Work, record_of, stage
from lorascope.studies.adapt import (
    dictionaries,
    fits,
    reading,
    reference_fits,
    several,
    single,
    times,
)
from lorascope.studies.adapt.facts import facts
from lorascope.studies.adapt.plan import AdaptPlan, plan_adapt
from lorascope.studies.adapt.state import Adapted
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.workflows.measured import Measured
from lorascope.workflows.running import run_study

RESULTS = "results"


def adapt(
    study: AdaptStudy,
    out: Path,
    reporter: Reporter,
    command: str = "",
    redo: bool = False,
    runner: Runner = run_here,
) -> Path:
    """Run or resume an adapt study in `out` and return the report's path.

    Args:
        redo: where `out` holds this study with other settings, make again what depends on them.
        runner: where its stages are made; one after the other in this process by default.

    Raises:
        InputError: anything the user has to mend, before anything costly where that is possible.
    """

    def before(run: Run, state: Adapted, graph: Graph, cost: AdaptPlan) -> None:
        if len(graph.records(out)) < len(graph):
            reading.require_budgets(state)

    asked = (study, out, reporter, command, redo, runner)
    return run_study(*asked, plan=plan_adapt, opened=Adapted, stages=stages, before=before)


def stages(state: Adapted) -> Iterator[Stage]:
    """Every stage of an adapt study, each after those it reads.

    Raises:
        InputError: what can be refused without the model's weights: a dictionary brought along that
            does not fit, curves whose dictionaries have no size.
    """
    found: list[Stage] = []
    for part in (reading, dictionaries, fits, several, reference_fits, times):
        for one in part.stages(state):
            found.append(one)
            yield one
    yield Stage(RESULTS, put_together, {"study": state.study}, tuple(one.name for one in found))


@stage(version=2, title="putting results together")
def put_together(work: Work, *, study: AdaptStudy) -> None:
    """The results table and all that the report says beside it."""
    state: Adapted = work.state
    measured = Measured()
    for cell in state.asked.fits:
        measured.add(Measured.read(work.input(fits.at(cell))))
    measured.add(several.compound(state))
    measured.add(single.all_won_back(state))
    measured.add(single.next_shares(state))
    measured.add(reference_fits.read_looks(state))
    timed = times.read_times(state)
    if timed is not None:
        measured.add(timed.measured)
    write_estimates([bounded(e, study.margin) for e in measured.estimates], work.folder)
    names = {estimate.key.adapter for estimate in measured.estimates}
    write_seeds(measured.estimates, {name: name for name in names if name}, work.folder)
    found = {
        "texts": reading.counts(work.run),
        "times": timed.points if timed else {},
        "steering": reference_fits.steering_facts(state),
    }
    records = {name: record_of(work.input(name)) for name in work.stage.inputs}
    record = facts(state, study, found, records)
    record["warnings"] += measured.told
    write_atomically(work.folder / "facts.json", json.dumps(record, indent=1) + "\n")
