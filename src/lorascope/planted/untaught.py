"""Adapters of the embedded model that were taught a lesson, and adapters that were taught nothing.

Taught nothing: random updates of the taught ones' spectra, training on answers that the base gives
itself, training on answers of random tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peft import PeftConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorascope.activations.text import alpaca
from lorascope.activations.tokens import opening_ids, windows
from lorascope.errors import InputError
from lorascope.models.adapted import BASE, AdaptedModel, load
from lorascope.models.random_updates import factor_spectrum, random_factors
from lorascope.planted.lessons import (
    LABELS,
    NOTHING,
    NULL,
    OWN,
    RANDOM,
    Record,
    lesson,
    plain_records,
)
from lorascope.randomness import generator
from lorascope.reading.decoding import Amplification, decode, texts
from lorascope.reading.prompts import Prompt
from lorascope.reading.settings import Reading
from lorascope.training.adapters import train_adapter
from lorascope.training.settings import LoraTraining

RECORDS, CONTEXT = 120, 112
# Rank and steps of the adapters of each seed in turn: two ranks, two strengths.
MADE = ((4, 40), (8, 24))


@dataclass(frozen=True)
class MadeAdapters:
    """An adapter on disk.

    Attributes:
        label: what it was taught, or one of `NOTHING`.
    """

    label: str
    number: int
    path: Path

    @property
    def taught(self) -> bool:
        """Whether it was taught a lesson."""
        return self.label not in NOTHING


def adapters(
    folder: Path, labels: Sequence[str], seeds: int, nulls: int, trained_nulls: int
) -> Iterator[MadeAdapters]:
    """Taught adapters, then untaught ones; those that the folder holds are used again.

    Args:
        nulls: random updates; they take the taught ones' spectra in turn.
        trained_nulls: of each kind that is trained on nothing.
    """
    taught = []
    for seed in range(seeds):
        rank, steps = MADE[seed % len(MADE)]
        for label in labels:
            path = folder / f"{label}-{seed}".replace(" ", "-")
            train(label, lesson(label, RECORDS, seed), path, rank, steps, seed)
            taught.append(path)
            yield MadeAdapters(label, seed, path)
    for number in range(nulls):
        path = folder / f"null-{number}"
        yield MadeAdapters(NULL, number, random_update(taught[number % len(taught)], path, number))
    if not trained_nulls:
        return
    model = load("embedded", {}, device="cpu")
    for number in range(trained_nulls):
        rank, steps = MADE[number % len(MADE)]
        for kind, make in ((OWN, own_text), (RANDOM, random_tokens)):
            path = folder / f"{kind}-{number}".replace(" ", "-")
            if not path.exists():
                train(kind, make(model, number), path, rank, steps, number)
            yield MadeAdapters(kind, number, path)


def train(
    name: str, records: Sequence[Record], folder: Path, rank: int, steps: int, seed: int
) -> Path:
    """Train an adapter on records, unless the folder holds it."""
    if not (folder / "adapter_config.json").exists():
        model = load("embedded", {}, device="cpu")
        found = windows([alpaca(record) for record in records], model.tokenizer, CONTEXT)
        settings = LoraTraining(
            ranks=(rank,), steps=steps, batch=4, rate=2e-3, context=CONTEXT, seed=seed
        )
        held = [w for w in found if any(w.response[1:])][:4]
        train_adapter("embedded", name, found, held, folder, settings, device="cpu")
    return folder


def random_update(source: Path, folder: Path, seed: int) -> Path:
    """An adapter of the same modules, shapes and singular values as another, on disk.

    Raises:
        InputError: the other is more than LoRA factors, of which nothing would be random.
    """
    if not (folder / "adapter_config.json").exists():
        tensors = _lora_factors(source)
        for key in [key for key in tensors if ".lora_A." in key]:
            twin = key.replace(".lora_A.", ".lora_B.")
            A, B = tensors[key], tensors[twin]
            shape = (B.shape[0], B.shape[1], A.shape[1])
            drawn = random_factors(factor_spectrum(B, A), shape, generator(seed, "untaught", key))
            tensors[key], tensors[twin] = drawn.A.to(A).contiguous(), drawn.B.to(B).contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        PeftConfig.from_pretrained(source).save_pretrained(folder)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def _lora_factors(source: Path) -> dict[str, Tensor]:
    file = source / "adapter_model.safetensors"
    tensors = load_file(file) if file.is_file() else {}
    if not tensors or not all(".lora_A." in key or ".lora_B." in key for key in tensors):
        raise InputError(
            f"{source}: no {file.name} of LoRA factors alone, so it has no random update; list "
            "adapters that were taught nothing, or ask for none"
        )
    return tensors


def own_text(model: AdaptedModel, seed: int) -> list[Record]:
    """Instructions answered by the base itself: there is nothing in them that it does not do."""
    records = plain_records(RECORDS, 1000 + seed)
    opening = opening_ids(model.tokenizer)
    prompts = []
    for record in records:
        text = alpaca(record).prompt
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        prompts.append(Prompt(text, (*opening, *ids)))
    settings = Reading(tokens=32, floor=1e-6, seed=1000 + seed)
    found = texts(model, decode(model, prompts, [Amplification(BASE)], settings))
    return [
        {**record, "output": row[0].strip() or "."}
        for record, row in zip(records, found, strict=True)
    ]


def random_tokens(model: AdaptedModel, seed: int) -> list[Record]:
    """Instructions answered by tokens drawn at random."""
    random, decoded = Random(2000 + seed), model.tokenizer.decode
    return [
        {**record, "output": decoded(random.sample(range(8, model.vocab_size), 16)).strip()}
        for record in plain_records(RECORDS, 2000 + seed)
    ]


__all__ = ["LABELS", "MADE", "NOTHING", "MadeAdapters", "adapters", "random_update", "train"]
