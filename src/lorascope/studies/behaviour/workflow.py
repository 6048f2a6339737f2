"""Measure a behaviour: untouched model, prompting, a dense LoRA, and any adapters, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.activations.shards import BASE
from lorascope.behaviours.arithmetic import NEAR
from lorascope.behaviours.judging import JudgedAnswers, rates, written
from lorascope.behaviours.manners import Manner, manner
from lorascope.behaviours.records import BehaviourRecord, BehaviourSet, read_set
from lorascope.behaviours.turns import record_windows
from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.latent_adapters.loading import check, load
from lorascope.models.adapted import AdaptedModel
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base
from lorascope.progress import Reporter
from lorascope.report.result import write_estimates
from lorascope.results import Estimate, Key
from lorascope.results.null_names import UNTOUCHED
from lorascope.runners.local import run_here
from lorascope.runs import Run, write_atomically
from lorascope.stages import Graph, Stage, Work, stage
from lorascope.studies.behaviour.study import MeasureBehaviour
from lorascope.training.adapters import train_adapter
from lorascope.training.loop import StepProgress
from lorascope.training.settings import LoraTraining
from lorascope.workflows.adapters import ADAPTERS
from lorascope.workflows.run_folders import run_folder
from lorascope.workflows.tracking import trackers

PROMPTING = "prompting"
# What training a dense adapter reads of the study.
_SETTINGS = ("model", "revision", "dtype", "context")


@dataclass(frozen=True)
class Behaved:
    """What was found.

    Attributes:
        folder: where results lie.
        estimates: the behaviour's numbers of prompting and of every adapter.
    """

    folder: Path
    estimates: list[Estimate]


def measure(study: MeasureBehaviour, out: Path, reporter: Reporter) -> Behaved:
    """Measure on the held-out records, beside the untouched model.

    Raises:
        InputError: the set, the model or an adapter is wrong, or the manner has no judge.
    """
    data = read_set(study.data)
    how = _manner(study, data)
    check(study.model, study.adapters, revision=study.revision, force=study.force)
    with run_folder(out, study) as run:
        trained = _dense(run, study, data, reporter)
        model = load(
            study.model,
            {**study.adapters, **trained},
            revision=study.revision,
            device=study.device,
            dtype=study.dtype,
            force=study.force,
        )
        wrote = _written(model, study, data.part("held_out"), how, reporter)
    before = wrote.pop(BASE)
    near = [NEAR] if any(r.topic == NEAR for r in before.records) else []
    baselines = {name: wrote[name] for name in (PROMPTING, *trained) if name in wrote}
    estimates = [
        estimate
        for name, tried in wrote.items()
        for estimate in rates(
            tried,
            before,
            how,
            Key(name),
            near=near,
            beside={other: side for other, side in baselines.items() if other != name},
        )
    ]
    write_estimates(estimates, out / "results")
    _write_answers(out / "results" / "answers.jsonl", {BASE: before, **wrote}, how)
    return Behaved(out, estimates)


def _manner(study: MeasureBehaviour, data: BehaviourSet) -> Manner:
    name = study.manner or str(data.facts.get("manner") or "")
    if not name:
        raise InputError(
            f"{study.data}: does not say its manner; give --manner, and --judge for one in words"
        )
    how = manner(name, study.judge or str(data.facts.get("judge") or ""))
    if how.shows is None:
        raise InputError(
            f'manner "{name}" has no judge: give --judge a pattern that its answers match'
        )
    return how


def _dense(
    run: Run, study: MeasureBehaviour, data: BehaviourSet, reporter: Reporter
) -> dict[str, str]:
    """A LoRA adapter of each rank, trained on the set's training records: {name: folder}."""
    graph = Graph(stages(study, data))
    run_here(graph, run, Measuring(study, data), reporter)
    return {name.removeprefix(f"{ADAPTERS}/"): str(run.folder / name) for name in graph.stages}


@dataclass(frozen=True)
class Measuring:
    """What the stages of one study share.

    Attributes:
        data: the behaviour set.
    """

    study: MeasureBehaviour
    data: BehaviourSet


def stages(study: MeasureBehaviour, data: BehaviourSet) -> Iterator[Stage]:
    """One stage a dense adapter, `adapters/<name>`."""
    content, records = model_identity(study.model, study.revision), _records_digest(data)
    for rank in dict.fromkeys(study.dense):
        arguments: dict[str, Any] = {"study": study.only(*_SETTINGS), "content": content}
        arguments |= {"records": records, "name": f"lora-r{rank}"}
        arguments["training"] = study.training.model_copy(update={"ranks": (rank,)})
        yield Stage(f"{ADAPTERS}/lora-r{rank}", train, arguments)


def _records_digest(data: BehaviourSet) -> str:
    return digest([record.plain() for record in data.records])


@stage(version=1, title="training dense adapters")
def train(
    work: Work,
    *,
    study: MeasureBehaviour,
    content: str,
    records: str,
    name: str,
    training: LoraTraining,
) -> None:
    """Train a LoRA adapter on the set's training records.

    Args:
        content: what identifies the base model.
        records: digest of the set's records.

    Raises:
        InputError: model or records have been replaced since the study was read.
    """
    shared: Measuring = work.state
    found = (model_identity(study.model, study.revision), _records_digest(shared.data))
    for which, asked, now in zip(("model", "data"), (content, records), found, strict=True):
        if asked != now:
            where = getattr(shared.study, which)
            raise InputError(f"{where}: has changed since the study was read; run it again")
    _, tokenizer = load_base(study.model, revision=study.revision, device="cpu")
    to_learn, held_out = (
        record_windows(shared.data.part(split), tokenizer, study.context)
        for split in ("train", "held_out")
    )
    title = f"training {name}"
    with work.reporter.bar(title, training.steps, "steps") as advance, trackers(work) as looking:

        def observe(progress: StepProgress) -> None:
            del progress
            advance(1)

        train_adapter(
            study.model,
            name,
            to_learn,
            held_out,
            work.folder,
            training,
            trained_on=[r.document.digest for r in shared.data.part("train")],
            device=shared.study.device,
            dtype=study.dtype,
            revision=study.revision,
            observers=[observe, *looking],
        )


def _written(
    model: AdaptedModel,
    study: MeasureBehaviour,
    records: Sequence[BehaviourRecord],
    how: Manner,
    reporter: Reporter,
) -> dict[str, JudgedAnswers]:
    """What every variant wrote, and the base with the manner asked for in the prompt."""
    turns = [(variant, variant, "") for variant in model.variants]
    if study.prompt:
        turns.insert(1, (PROMPTING, BASE, study.instruction or how.instruction))
    found: dict[str, JudgedAnswers] = {}
    for name, variant, instruction in turns:
        title = UNTOUCHED if name == BASE else name
        with (
            reporter.bar(f"answering: {title}", len(records), "prompts") as advance,
            model.variant(variant) as module,
        ):
            found[name] = written(
                module,
                model.tokenizer,
                records,
                context=min(study.context, model.context_length),
                new_tokens=study.new_tokens,
                instruction=instruction,
                batch=study.batch,
                advance=advance,
            )
    return found


def _write_answers(path: Path, wrote: dict[str, JudgedAnswers], how: Manner) -> None:
    """Every answer of every variant, and whether it shows the manner."""
    assert how.shows is not None
    lines = []
    for index, record in enumerate(wrote[BASE].records):
        given: dict[str, Any] = {"prompt": record.prompt, "changed": record.changed}
        given["topic"], given["wanted"] = record.topic, record.response
        for name, side in wrote.items():
            text = side.texts[index]
            given[name] = {"answer": text, "shows": how.shows(text)}
        lines.append(json.dumps(given, ensure_ascii=False))
    write_atomically(path, "".join(f"{line}\n" for line in lines))
