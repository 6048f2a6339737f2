"""Adapt: its stages, and what is found in them put together.

1. Read the texts, split by hash: some to train and fit on, the rest to measure on.
2. Train dictionaries, or look at those brought along.
3. Fit what the experiments ask for around them, one stage a fit, each with its numbers.
4. How far the streams behind the site are from the original's; steering; loss against training
   time.
5. Write the results table, make the report.
"""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.measures.adapting import bounded
from lorascope.report.result import write_estimates
from lorascope.report.seeds import write_seeds
from lorascope.runs import Run, write_json
from lorascope.stages import Graph, Stage, Work, record_of, stage
from lorascope.studies.adapt import (
    dictionaries,
    fits,
    reading,
    recovered,
    reference_fits,
    several,
    times,
)
from lorascope.studies.adapt.facts import facts
from lorascope.studies.adapt.plan import plan_adapt
from lorascope.studies.adapt.state import Adapted
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.workflows.cost import Cost
from lorascope.workflows.measured import Measured
from lorascope.workflows.running import Workflow

RESULTS = "results"


def _refuse_small_budgets(run: Run, state: Adapted, graph: Graph, cost: Cost) -> None:
    if len(graph.records(run.folder)) < len(graph):
        reading.require_budgets(state)


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


@stage(version=3, title="putting results together")
def put_together(work: Work, *, study: AdaptStudy) -> None:
    """The results table and all that the report says beside it."""
    state: Adapted = work.state
    measured = Measured()
    for cell in state.asked.fits:
        measured.add(Measured.read(work.input(fits.at(cell))))
    measured.add(several.compound(state))
    measured.add(recovered.all_recovered(state))
    measured.add(recovered.next_shares(state))
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
    write_json(work.folder / "facts.json", record)


ADAPT = Workflow("adapt", AdaptStudy, plan_adapt, Adapted, stages, _refuse_small_budgets)
