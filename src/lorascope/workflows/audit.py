"""The audit, step by step. Each step is a stage of the run folder; finished ones are not redone.

1. Train adapters, where the study asks for that.
2. Read the texts, leave out what the adapters have seen, split by hash.
3. Gates: adapters are live, deltas stand above numeric noise; samples.
4. Capture the base and every delta, to train on and to measure on; there response losses too.
5. Train dictionaries.
6. Measure: geometry and reconstruction site by site, effects on the outputs adapter by adapter,
   the weights.
7. Write the results table, make the report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorascope import report
from lorascope.activations.collect import collect
from lorascope.activations.shards import Shards
from lorascope.activations.tokens import Window
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.measures.massive import judged_without
from lorascope.measures.null_draws import beside_draws
from lorascope.measures.seeds import condition_shares
from lorascope.measures.yardsticks import without_verdicts
from lorascope.models.sites import resolve_sites
from lorascope.report.result import write_estimates
from lorascope.report.seeds import write_seeds
from lorascope.runs import write_atomically
from lorascope.workflows import plan as planning
from lorascope.workflows.adapters import Base, split_for_training, train_adapters
from lorascope.workflows.browsing import browse
from lorascope.workflows.effects import take_effects
from lorascope.workflows.facts import facts
from lorascope.workflows.gating import pass_gates
from lorascope.workflows.learning import bring, learn
from lorascope.workflows.massive import take_massive
from lorascope.workflows.measured import Measured
from lorascope.workflows.measuring import Audit, measure
from lorascope.workflows.progress import Reporter
from lorascope.workflows.refusals import run_folder
from lorascope.workflows.responses import losses_of, read_losses, write_losses
from lorascope.workflows.state import Audited
from lorascope.workflows.study import AuditStudy
from lorascope.workflows.variants import Variants
from lorascope.workflows.weighing import weigh
from lorascope.workflows.yardsticks import take_yardsticks

_HELD_OUT = "held_out"


def audit(
    study: AuditStudy, out: Path, reporter: Reporter, command: str = "", redo: bool = False
) -> Path:
    """Run or resume an audit in `out` and return the report's path.

    Args:
        redo: where `out` holds this study with other settings, make again what depends on them.

    Raises:
        InputError: anything the user has to mend, before anything costly where that is possible.
    """
    with run_folder(out, study, redo) as run:
        cost = planning.plan(study, estimates=False)
        planning.refuse_what_cannot_fit(cost, out)
        brought = bring(study, cost.d_model)
        return _audit(Audited(study, run, reporter), brought, command)


def _audit(state: Audited, brought: dict[str, Dictionary], command: str) -> Path:
    study, run, reporter = state.study, state.run, state.reporter
    _adapters(state)
    gates = pass_gates(state)
    probe, held_out = _capture(state)
    learned = learn(run, study, probe, held_out, brought, state.hashes, reporter)
    variants = Variants.read(gates)
    whole = Audit(study, probe, held_out, learned, variants, gates["noise_floor"])
    measured = Measured(read_losses(held_out.folder))
    yardsticks = take_yardsticks(state, whole)
    measured.add(yardsticks.measured)
    measured.add(measure(whole, run, reporter))
    measured.add(take_massive(state, whole))
    measured.add(take_effects(state, whole))
    measured.add(browse(state, whole))
    measured.add(weigh(state, whole))
    judged = without_verdicts(judged_without(beside_draws(measured.estimates)), yardsticks.verdicts)
    shares = condition_shares([e for e in judged if e.key.draw is None], study.groups)
    dictionaries = learned.facts()

    def make(folder: Path) -> None:
        write_estimates([*judged, *shares], folder)
        write_seeds([e for e in judged if e.key.draw is None], study.groups, folder)
        record = facts(state, gates, probe, held_out, dictionaries, command)
        record["warnings"] += measured.warnings
        record["yardsticks"] = [verdict.record() for verdict in yardsticks.verdicts]
        record["massive"] = yardsticks.massive
        write_atomically(folder / "facts.json", json.dumps(record, indent=1) + "\n")

    run.stage("results", study.groups, make, *run.asked)
    run.drop_unasked()
    reporter.say("writing the report")
    return report.build(run.folder)


def _adapters(state: Audited) -> None:
    study = state.study
    if study.train is None:
        state.paths = study.given
        return
    base = Base(study.model, study.revision, study.dtype, study.device)
    documents = split_for_training(study.train, study.seed)
    training, seeds = study.train.training, study.train.seeds
    state.trained = train_adapters(state.run, base, documents, training, seeds, state.reporter)
    state.paths = {name: str(folder) for name, folder in state.trained.items()}


def _capture(state: Audited) -> tuple[Shards, Shards]:
    found: list[Shards] = []
    for name, documents in (("probe", state.texts.probe), (_HELD_OUT, state.texts.held_out)):
        identity = state.identity(documents)

        def make(folder: Path, name: str = name, identity: Any = identity) -> None:
            chosen: list[Window] = getattr(state, name)
            sites = resolve_sites(state.model.n_blocks, state.study.sites)
            total = sum(len(window.ids) for window in chosen)
            title = f"capturing {name.replace('_', '-')} activations"
            losses = losses_of(chosen) if name == _HELD_OUT else None
            with state.reporter.bar(title, total, "tokens") as advance:
                collect(
                    state.model,
                    chosen,
                    sites,
                    folder,
                    state.study.capture,
                    digest(identity),
                    whole=None if losses is None else losses.take,
                    advance=advance,
                )
            if losses is not None:
                write_losses(losses, state.model, folder)

        depends_on = [identity, "response losses"] if name == _HELD_OUT else identity
        folder = state.run.stage(f"activations/{name}", depends_on, make)
        found.append(Shards.open(folder))
    probe, held_out = found
    if len(probe) < state.study.dictionaries.fitting.batch:
        raise InputError(
            f"{len(probe)} tokens are left to train on once special tokens and outliers are "
            "masked; give more text"
        )
    return probe, held_out
