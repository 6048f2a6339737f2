"""An evaluation: its stages, and what is found in them put together.

1. Read the texts, split by hash: some give means and baselines, the others are measured on.
2. Each evaluation of each subject is a stage of its own.
3. Write the results table, make the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.models.identity import model_identity
from lorascope.report.result import write_estimates
from lorascope.runs import Run, command_of, read_json, versions, write_json
from lorascope.stages import Graph, Stage, Work, record_of, stage
from lorascope.studies.evaluate import evaluations
from lorascope.studies.evaluate.plan import EvaluatePlan, plan_evaluate
from lorascope.studies.evaluate.settings import Core, EvaluateStudy
from lorascope.studies.evaluate.state import Evaluating, require_texts
from lorascope.studies.evaluate.units import write_units
from lorascope.workflows.measured import Measured
from lorascope.workflows.running import Workflow

WORKFLOW, TEXTS, RESULTS = "evaluate", "texts", "results"
_FILE, FACTS = "texts.json", "facts.json"


def _say_what_it_asks(run: Run, state: Evaluating, graph: Graph, cost: EvaluatePlan) -> None:
    for note in cost.questions:
        state.reporter.say(note)


@stage(version=1, title="reading texts")
def read(work: Work, *, identity: Mapping[str, Any], core: Core | None) -> None:
    """Count the texts, and refuse those that cannot carry the numbers.

    Args:
        core: how many tokens of them every evaluation reads.

    Raises:
        InputError: too few, or the model has been replaced since the study was read.
    """
    del core
    name, revision, _, content = identity["model"]
    if model_identity(name, revision) != content:
        raise InputError(f"{name}: has changed since the study was read; run it again")
    record = require_texts(work.state)
    write_json(work.folder / _FILE, record)


@stage(version=3, title="evaluating")
def take(
    work: Work,
    *,
    evaluation: str,
    subject: str,
    settings: Settings,
    identity: Mapping[str, Any],
    seed: int,
) -> None:
    """One evaluation of one subject.

    Args:
        identity: what the subject is made of.
        seed: of draws.
    """
    del identity
    state: Evaluating = work.state
    with state.opened(subject) as found:
        taken = evaluations.TAKERS[evaluation](work, found, settings, seed)
    Measured(taken.estimates, taken.warnings).write(work.folder)
    write_json(work.folder / FACTS, taken.facts)
    write_units(taken.units, work.folder)


def stages(state: Evaluating) -> Iterator[Stage]:
    """Every stage of an evaluation: `texts`, `<evaluation>/<subject>`, `results`."""
    study = state.study
    yield Stage(TEXTS, read, {"identity": state.identity(), "core": study.core})
    found = []
    for name in study.subjects:
        identity = state.subject_identity(name)
        for evaluation in study.asked:
            if not study.applies(name, evaluation):
                continue
            arguments = {
                "evaluation": evaluation,
                "subject": name,
                "settings": getattr(study, evaluation),
                "identity": {**identity, "subject": study.subjects[name], "force": study.force},
                "seed": study.seed,
            }
            one = Stage(f"{evaluation}/{name}", take, arguments, (TEXTS,))
            found.append(one.name)
            yield one
    yield Stage(RESULTS, put_together, {"study": study}, (TEXTS, *found))


@stage(version=1, title="putting results together")
def put_together(work: Work, *, study: EvaluateStudy) -> None:
    """The results table and all that the report says beside it."""
    measured, found = Measured(), {}
    for name in work.stage.inputs:
        if name == TEXTS:
            continue
        measured.add(Measured.read(work.input(name)))
        found[name] = read_json(work.input(name) / FACTS)
    write_estimates(measured.estimates, work.folder)
    records = {name: record_of(work.input(name)) for name in work.stage.inputs}
    facts = {
        "workflow": WORKFLOW,
        "model": {"id": study.model, "revision": study.revision, "dtype": study.dtype},
        "texts": read_json(work.input(TEXTS) / _FILE),
        "subjects": {name: one.plain() for name, one in study.subjects.items()},
        "found": found,
        "warnings": [*_warnings(study), *measured.told],
        "command": command_of(work.run),
        "versions": versions(),
        "seconds": {name: one["seconds"] for name, one in records.items()},
        "made_from": {name: one["key"] for name, one in records.items()},
        "settings": study.plain(),
    }
    write_json(work.folder / "facts.json", facts)


def _warnings(study: EvaluateStudy) -> list[str]:
    found = []
    if study.tpp is not None or study.scr is not None:
        found.append(
            "SCR and TPP: a study of 2026 (arXiv 2605.18229) finds that TPP falls as a "
            "dictionary's training goes on and that SCR correlates negatively with quality where "
            "many latents are zeroed; read them beside those of the random-decoder dictionary"
        )
    return found


EVALUATE = Workflow(WORKFLOW, EvaluateStudy, plan_evaluate, Evaluating, stages, _say_what_it_asks)
