"""Adapt, step by step. Each step is a stage of the run folder; finished ones are not redone.

1. Read the texts, split by hash: some to train and fit on, the rest to measure on.
2. Train dictionaries, or look at those brought along.
3. Fit what the experiments ask for around them, one stage a fit, each with its numbers.
4. Loss against training time; how far the streams behind the site are from the original's.
5. Write the results table, make the report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorascope import report
from lorascope.adapt.preparing import plan
from lorascope.measures.adapting import bounded
from lorascope.report.result import write_estimates
from lorascope.report.seeds import write_seeds
from lorascope.runs import write_atomically
from lorascope.workflows.adapt.cells import asked
from lorascope.workflows.adapt.dictionaries import Standing, check_brought, stand
from lorascope.workflows.adapt.facts import facts
from lorascope.workflows.adapt.fits import fit_all
from lorascope.workflows.adapt.looks import look_again, steering_facts
from lorascope.workflows.adapt.plan import plan_adapt, refuse_what_cannot_fit
from lorascope.workflows.adapt.several import compound
from lorascope.workflows.adapt.state import Adapted
from lorascope.workflows.adapt.study import AdaptStudy
from lorascope.workflows.adapt.times import require_size, take_times
from lorascope.workflows.measured import Measured
from lorascope.workflows.progress import Reporter
from lorascope.workflows.refusals import run_folder


def adapt(
    study: AdaptStudy, out: Path, reporter: Reporter, command: str = "", redo: bool = False
) -> Path:
    """Run or resume an adapt study in `out` and return the report's path.

    Args:
        redo: where `out` holds this study with other settings, make again what depends on them.

    Raises:
        InputError: anything the user has to mend, before anything costly where that is possible.
    """
    with run_folder(out, study, redo) as run:
        cost = plan_adapt(study, estimates=False)
        refuse_what_cannot_fit(cost, out)
        state = Adapted(study, run, reporter, asked(study, cost.blocks))
        return _adapt(state, command)


def _adapt(state: Adapted, command: str) -> Path:
    run = state.run
    # Whatever can be refused is refused before a stage is finished.
    require_size(state)
    _require_budgets(state)
    brought = check_brought(state)
    texts = state.read_texts()
    standing = stand(state, brought)
    measured = Measured()
    measured.add(fit_all(state, standing))
    measured.add(compound(state, standing))
    measured.add(look_again(state, standing))
    timed = take_times(state)
    if timed is not None:
        measured.add(timed.measured)
    found = {"times": timed.points if timed else {}, "steering": steering_facts(state)}
    _write_results(state, {"texts": texts, **found}, standing, measured, command)
    run.drop_unasked()
    return report.build(run.folder)


def _require_budgets(state: Adapted) -> None:
    """Refuse budgets smaller than a step before anything is trained; raises as `plan`."""
    for cell in state.asked.fits[:1]:
        plan(state.training, state.tokenizer, cell.settings(state.study))


def _write_results(
    state: Adapted,
    found: dict[str, Any],
    standing: Standing,
    measured: Measured,
    command: str,
) -> None:
    run = state.run

    def make(folder: Path) -> None:
        write_estimates([bounded(e, state.study.margin) for e in measured.estimates], folder)
        names = {estimate.key.adapter for estimate in measured.estimates}
        write_seeds(measured.estimates, {name: name for name in names if name}, folder)
        record = facts(state, found, standing, command)
        record["warnings"] += measured.told
        write_atomically(folder / "facts.json", json.dumps(record, indent=1) + "\n")

    cells = {name: [cell.name for cell in some] for name, some in state.asked.cells.items()}
    depends_on = [cells, state.asked.reference.name, state.study.margin]
    run.stage("results", depends_on, make, *run.asked)
