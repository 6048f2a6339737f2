"""The adapters of a latent study: one a choice of sparsity and seed, and an ordinary LoRA."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lorascope.adapt.wrapper import identity
from lorascope.errors import InputError
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.fitting import LatentTraining, fit
from lorascope.runs import read_json, write_atomically
from lorascope.training.adapters import train_adapter
from lorascope.training.loop import History, Progress
from lorascope.training.model_losses import response_tokens
from lorascope.workflows.latent.state import Learned
from lorascope.workflows.latent.study import DENSE

HISTORY, LORA_FOLDER = "history.json", "adapters/lora"
CHOICE, _LOSSES = "choice", "losses.json"
# Points of a training curve that are kept.
_POINTS = 60
_BATCH = 64
# Examples of either kind on which choices are compared.
_COMPARED = 128


@dataclass
class Adapters:
    """Trained latent adapters, opened when asked for.

    Attributes:
        folders: {name: stage}.
    """

    state: Learned
    folders: dict[str, Path]

    def open(self, name: str) -> LatentAdapter:
        """A trained adapter, whole."""
        found = LatentAdapter.from_pretrained(
            self.folders[name], dictionary=self.state.reading.dictionary
        )
        return found.to(self.state.reading.device)

    def named(self, choice: str, seed: int) -> LatentAdapter:
        """An adapter cut down to as many latents as the study calls readable."""
        most = self.state.study.measures.most
        return self.open(adapter_name(choice, seed)).cut(most, most)

    def candidates(self, choice: str, seed: int) -> tuple[Sequence[int], Sequence[int]] | None:
        """Latents that were preselected to be read and written; None for all there are."""
        card = self.open(adapter_name(choice, seed)).card
        return None if card is None else card.candidates

    def answering(self, name: str) -> LatentAdapter:
        """The adapter as it is judged: dense ones whole, all others cut down."""
        choice, seed = self.state.study.adapters[name]
        return self.open(name) if choice == DENSE else self.named(choice, seed)

    @cached_property
    def losses(self) -> dict[str, float]:
        """{choice: mean training loss of its adapters, cut down to the size asked for}."""
        study = self.state.study

        def make(folder: Path) -> None:
            found: dict[str, float] = {}
            with self.state.reporter.bar("comparing choices", len(self.folders), "adapters") as on:
                for choice in study.choices:
                    losses = []
                    for seed in study.seeds:
                        losses.append(self._loss(choice, seed))
                        on(1)
                    found[choice] = sum(losses) / len(losses)
            write_atomically(folder / _LOSSES, json.dumps(found, indent=1) + "\n")

        parents = [f"adapters/{name}" for name in self.folders]
        stage = self.state.run.stage(CHOICE, [study.measures.most], make, *parents)
        return dict(read_json(stage / _LOSSES))

    @property
    def chosen(self) -> str:
        """The choice that does best on training examples once it is cut down."""
        losses = self.losses
        choices = [choice for choice in losses if choice != DENSE] or [DENSE]
        return min(choices, key=lambda choice: losses[choice])

    def curves(self) -> list[dict[str, Any]]:
        """Loss, penalty and effective numbers of latents over training, a record a point."""
        return [
            {"choice": choice, "seed": seed, **point}
            for name, (choice, seed) in self.state.study.adapters.items()
            for point in read_json(self.folders[name] / HISTORY)
        ]

    @torch.no_grad()
    def _loss(self, choice: str, seed: int) -> float:
        reading, examples = self.state.reading, self.state.examples
        adapter, means = self.named(choice, seed), []
        for kind in (examples.changed[:_COMPARED], examples.unchanged[:_COMPARED]):
            total = count = 0.0
            for start in range(0, len(kind), _BATCH):
                batch = reading.batch(kind[start : start + _BATCH])
                with reading.going_on(reading.changed(adapter, batch)) as module:
                    losses = response_tokens(module, batch.tokens, reading.device).losses
                total, count = total + float(losses.sum()), count + len(losses)
            means.append(total / count)
        return sum(means) / 2


def adapter_name(choice: str, seed: int) -> str:
    """What an adapter's folder is called."""
    return f"{choice.replace(' ', '-')}-s{seed}"


def train_all(state: Learned) -> Adapters:
    """Every adapter of the study, each a stage."""
    study = state.study
    folders: dict[str, Path] = {}
    for name, (choice, seed) in study.adapters.items():
        own = study.trained(choice, seed)
        # A dictionary brought along is known by what it computes, not by where it lies.
        brought = identity(state.dictionary) if study.dictionary else None
        where = brought or study.train_dictionary.plain()
        depends_on = [state.identity, own.plain(), study.site, where, study.force]
        checkpoint = state.run.folder / f".{name}.state"

        def make(
            folder: Path, name: str = name, own: LatentTraining = own, file: Path = checkpoint
        ) -> None:
            _train(state, folder, name, own, file)

        parents = state.dictionary_stage
        if parents:
            state.dictionary  # noqa: B018 - its stage comes first
        folders[name] = state.run.stage(f"adapters/{name}", depends_on, make, *parents)
    train_lora(state)
    return Adapters(state, folders)


def _train(state: Learned, folder: Path, name: str, own: LatentTraining, checkpoint: Path) -> None:
    reading, examples = state.reading, state.examples
    with state.reporter.bar(f"training {name}", own.steps, "steps") as advance:

        def observe(progress: Progress) -> None:
            del progress
            advance(1)

        fitted = fit(
            reading,
            examples,
            own,
            model=state.study.model,
            observers=[observe],
            checkpoint=checkpoint,
        )
    fitted.adapter.save_pretrained(folder)
    points = json.dumps(_points(fitted.history), indent=1)
    write_atomically(folder / HISTORY, points + "\n")


def _points(history: History) -> list[dict[str, float]]:
    names = ("loss", "penalty", "effective_read", "effective_written")
    columns = {name: history.series(name) for name in names}
    total = len(history.records)
    step = max(1, total // _POINTS)
    kept = sorted({*range(0, total, step), total - 1})
    return [{"step": i + 1, **{name: columns[name][i] for name in names}} for i in kept]


def train_lora(state: Learned) -> Path:
    """An ordinary LoRA adapter on the same examples."""
    study, settings = state.study, state.study.lora_training()

    def make(folder: Path) -> None:
        learned = state.windows("train", True) + state.windows("train", False)
        most = study.measures.prompts
        measured = [w for kind in (True, False) for w in state.windows("held_out", kind)[:most]]
        with state.reporter.bar("training LoRA", settings.steps, "steps") as advance:

            def observe(progress: Progress) -> None:
                del progress
                advance(1)

            train_adapter(
                study.model,
                "lora",
                learned,
                measured,
                folder,
                settings,
                trained_on=state.examples.trained_on,
                device=study.device,
                dtype=study.dtype,
                revision=study.revision,
                observers=[observe],
            )

    if len(settings.ranks) != 1:
        raise InputError("lora.ranks: give one rank; it is a single adapter to compare with")
    return state.run.stage(LORA_FOLDER, [state.identity, settings.plain()], make)
