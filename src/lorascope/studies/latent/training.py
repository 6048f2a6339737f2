"""The adapters of a latent study: one a choice of sparsity and seed, and an ordinary LoRA.

Of the choices, the one that does best cut down is looked at closely. Training examples decide it,
so that no held-out prompt does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lorascope.errors import InputError
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.fitting import fit
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.outputs.responses import response_tokens
from lorascope.runs import read_json, write_atomically, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.latent.dictionary import reading_of
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import DENSE, LatentStudy
from lorascope.training.adapters import train_adapter
from lorascope.training.loop import History, StepProgress
from lorascope.training.settings import LoraTraining
from lorascope.workflows.tracking import trackers

ADAPTERS, HISTORY, LORA_AT = "adapters", "history.json", "adapters/lora"
CHOICE, _LOSSES = "choice", "losses.json"
# Points of a training curve that are kept.
_POINTS = 60
_BATCH = 64
# Examples of either kind on which choices are compared.
_COMPARED = 128
# What the adapters' cards say of the study, and what training a LoRA adapter reads of it.
_SETTINGS = ("model", "behaviour", "manner")
_LORA_SETTINGS = ("model", "revision", "dtype", "measures.prompts")


def adapter_name(choice: str, seed: int) -> str:
    """What an adapter's folder is called."""
    return f"{choice.replace(' ', '-')}-s{seed}"


def adapter_at(name: str) -> str:
    """The stage of an adapter."""
    return f"{ADAPTERS}/{name}"


def opened(work: Work, name: str) -> LatentAdapter:
    """A trained adapter that a stage reads, whole."""
    reading, folder = reading_of(work), work.input(adapter_at(name))
    found = LatentAdapter.from_pretrained(folder, dictionary=reading.dictionary)
    return found.to(reading.device)


def named(work: Work, choice: str, seed: int, most: int) -> LatentAdapter:
    """An adapter cut down to as many latents as the study calls readable."""
    return opened(work, adapter_name(choice, seed)).cut(most, most)


def candidates(work: Work, choice: str, seed: int) -> tuple[Sequence[int], Sequence[int]] | None:
    """Latents that were preselected to be read and written; None for all there are."""
    card = opened(work, adapter_name(choice, seed)).card
    return None if card is None else card.candidates


def losses_of(choice: Path) -> dict[str, float]:
    """{choice: mean training loss of its adapters, cut down}, as the stage `choice` left it."""
    return dict(read_json(choice / _LOSSES))


def chosen(losses: dict[str, float]) -> str:
    """The choice that does best on training examples once it is cut down."""
    choices = [choice for choice in losses if choice != DENSE] or [DENSE]
    return min(choices, key=lambda choice: losses[choice])


def stages(state: LatentRun) -> Iterator[Stage]:
    """One stage an adapter, `adapters/<name>`, and `choice`.

    Raises:
        InputError: the ordinary adapter has several ranks.
    """
    study, identity = state.study, state.identity
    settings = study.lora_training()
    if len(settings.ranks) != 1:
        raise InputError("lora.ranks: give one rank; it is a single adapter to compare with")
    for name, (choice, seed) in study.adapters.items():
        arguments: dict[str, Any] = {"study": study.only(*_SETTINGS), "identity": identity}
        arguments |= {"name": name, "training": study.trained(choice, seed)}
        yield Stage(adapter_at(name), train, arguments, (state.dictionary_at,))
    arguments = {"study": study.only(*_LORA_SETTINGS), "identity": identity, "training": settings}
    yield Stage(LORA_AT, train_lora, arguments)
    arguments = {"study": study.only("seeds", "measures.most"), "choices": list(study.choices)}
    inputs = (state.dictionary_at, *map(adapter_at, study.adapters))
    yield Stage(CHOICE, compare, arguments, inputs)


@stage(version=1, title="training adapters")
def train(
    work: Work,
    *,
    study: LatentStudy,
    identity: dict[str, Any],
    name: str,
    training: LatentTraining,
) -> None:
    """Train a latent adapter on the behaviour, over the dictionary.

    Args:
        identity: what everything depends on.

    Raises:
        InputError: model or records have been replaced since the study was read.
    """
    state: LatentRun = work.state
    state.require(identity)
    examples = replace(state.examples, data=f"{study.behaviour}, manner {study.manner}")
    title = f"training {name}"
    with work.reporter.bar(title, training.steps, "steps") as advance, trackers(work) as looking:

        def observe(progress: StepProgress) -> None:
            del progress
            advance(1)

        fitted = fit(
            reading_of(work),
            examples,
            training,
            model=study.model,
            observers=[observe, *looking],
            checkpoint=work.run / f".{name}.state",
        )
    fitted.adapter.save_pretrained(work.folder)
    points = json.dumps(_points(fitted.history), indent=1)
    write_atomically(work.folder / HISTORY, points + "\n")


def _points(history: History) -> list[dict[str, float]]:
    names = ("loss", "penalty", "effective_read", "effective_written")
    columns = {name: history.series(name) for name in names}
    total = len(history.records)
    step = max(1, total // _POINTS)
    kept = sorted({*range(0, total, step), total - 1})
    return [{"step": i + 1, **{name: columns[name][i] for name in names}} for i in kept]


@stage(version=1, title="training LoRA")
def train_lora(
    work: Work, *, study: LatentStudy, identity: dict[str, Any], training: LoraTraining
) -> None:
    """Train an ordinary LoRA adapter on the same examples.

    Args:
        identity: what everything depends on.

    Raises:
        InputError: model or records have been replaced since the study was read.
    """
    state: LatentRun = work.state
    state.require(identity)
    windows, most = state.fitting, study.measures.prompts
    learned = windows["train", True] + windows["train", False]
    measured = [w for kind in (True, False) for w in windows["held_out", kind][:most]]
    title = "training LoRA"
    with work.reporter.bar(title, training.steps, "steps") as advance, trackers(work) as looking:

        def observe(progress: StepProgress) -> None:
            del progress
            advance(1)

        train_adapter(
            study.model,
            "lora",
            learned,
            measured,
            work.folder,
            training,
            trained_on=[record.document.digest for record in state.behaviour.part("train")],
            device=state.study.device,
            dtype=study.dtype,
            revision=study.revision,
            observers=[observe, *looking],
        )


@stage(version=1, title="comparing choices")
def compare(work: Work, *, study: LatentStudy, choices: Sequence[str]) -> None:
    """Mean training loss of each choice's adapters, cut down to the size asked for."""
    found: dict[str, float] = {}
    total = len(choices) * len(study.seeds)
    with work.reporter.bar("comparing choices", total, "adapters") as advance:
        for choice in choices:
            losses = []
            for seed in study.seeds:
                losses.append(_loss(work, named(work, choice, seed, study.measures.most)))
                advance(1)
            found[choice] = sum(losses) / len(losses)
    write_json(work.folder / _LOSSES, found)


@torch.no_grad()
def _loss(work: Work, adapter: LatentAdapter) -> float:
    reading, examples, means = reading_of(work), work.state.examples, []
    for kind in (examples.changed[:_COMPARED], examples.unchanged[:_COMPARED]):
        total = count = 0.0
        for start in range(0, len(kind), _BATCH):
            batch = reading.batch(kind[start : start + _BATCH])
            with reading.going_on(reading.changed(adapter, batch)) as module:
                losses = response_tokens(module, batch.tokens, reading.device).losses
            total, count = total + float(losses.sum()), count + len(losses)
        means.append(total / count)
    return sum(means) / 2
