"""What every model of a latent study answers, and what is left when adapters are cut down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorascope.behaviours.generation import answers
from lorascope.behaviours.judging import Written, written
from lorascope.behaviours.turns import prompt_ids
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.models import dimensions
from lorascope.models.adapted import load
from lorascope.randomness import generator
from lorascope.runs import read_json, write_atomically
from lorascope.workflows.latent.state import Learned
from lorascope.workflows.latent.study import DENSE
from lorascope.workflows.latent.training import LORA_FOLDER, Adapters

UNTOUCHED, PROMPTED, LORA = "untouched", "prompted", "LoRA"
FRONTIER, _FILE = "frontier", "answers.json"
Attached = Callable[[], AbstractContextManager[nn.Module]]


def answered(state: Learned, adapters: Adapters) -> dict[str, Written]:
    """{name: answers to the held-out prompts}, each a stage."""
    study = state.study

    @contextmanager
    def bare() -> Iterator[nn.Module]:
        yield state.model[0]

    @contextmanager
    def with_lora() -> Iterator[nn.Module]:
        model = load(
            study.model,
            {LORA: state.run.folder / LORA_FOLDER},
            revision=study.revision,
            dtype=study.dtype,
            device=study.device,
            force=True,
        )
        with model.face(LORA) as module:
            yield module

    found = {UNTOUCHED: _stage(state, UNTOUCHED, bare, ())}
    if study.prompting:
        asking = state.manner.instruction
        found[PROMPTED] = _stage(state, PROMPTED, bare, (), asking)
    found[LORA] = _stage(state, LORA, with_lora, (LORA_FOLDER,))
    for name in study.adapters:

        @contextmanager
        def with_latent(name: str = name) -> Iterator[nn.Module]:
            with adapters.answering(name).attached(state.model[0]):
                yield state.model[0]

        found[name] = _stage(state, name, with_latent, (f"adapters/{name}",))
    return found


def _stage(
    state: Learned, name: str, attached: Attached, parents: Sequence[str], instruction: str = ""
) -> Written:
    measures, records = state.study.measures, state.asked
    keys = [record.key for record in records]
    depends_on = [state.identity, keys, measures.new_tokens, measures.most, instruction]

    def make(folder: Path) -> None:
        with (
            state.reporter.bar(f"answers, {name}", len(records), "prompts") as advance,
            attached() as module,
        ):
            done = written(
                module,
                state.model[1],
                records,
                context=_room(state),
                new_tokens=measures.new_tokens,
                instruction=instruction,
                advance=advance,
            )
        sums, tokens = done.losses
        data = {"texts": done.texts, "sums": sums.tolist(), "tokens": tokens.tolist()}
        write_atomically(folder / _FILE, json.dumps(data, indent=1, ensure_ascii=False) + "\n")

    path = state.run.stage(f"answers/{name}", depends_on, make, *parents) / _FILE
    data = read_json(path)
    losses = [torch.tensor(data[column], dtype=torch.float64) for column in ("sums", "tokens")]
    return Written(tuple(records), tuple(data["texts"]), (losses[0], losses[1]))


def _room(state: Learned) -> int:
    """Longest prompt with an instruction and its response."""
    return dimensions.context(state.model[0])


@dataclass(frozen=True)
class Cut:
    """Whether each held-out prompt about the topic shows the manner under one adapter.

    Attributes:
        whole: with the adapter as it was trained.
        sizes: {most latents read, and written: cut down to the heaviest}.
        random: {likewise: cut down to as many drawn at random, a draw each}; of dense adapters.
    """

    whole: list[bool]
    sizes: dict[int, list[bool]] = field(default_factory=dict)
    random: dict[int, list[list[bool]]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Cut:
        """What `write` left."""
        data = read_json(path)
        sizes = {int(size): shown for size, shown in data["sizes"].items()}
        random = {int(size): draws for size, draws in data["random"].items()}
        return cls(data["whole"], sizes, random)


def shown(state: Learned, adapter: LatentAdapter | None = None) -> list[bool]:
    """Whether the answer to each held-out prompt about the topic shows the manner."""
    judge, (module, tokenizer) = state.manner.shows, state.model
    assert judge is not None
    prompts = [prompt_ids(r.messages, tokenizer) for r in state.asked if r.changed]
    with nullcontext() if adapter is None else adapter.attached(module):
        texts = answers(module, tokenizer, prompts, new_tokens=state.study.measures.new_tokens)
    return [judge(text) for text in texts]


def frontier(state: Learned, adapters: Adapters) -> dict[str, Cut]:
    """{name: what is shown whole and cut down}, the untouched model under its own name.

    An adapter is cut down to as many latents to read as to write. The dense ones are also cut down
    to latents drawn at random.
    """
    study = state.study
    measures = study.measures
    keys = [record.key for record in state.asked if record.changed]
    depends_on: list[Any] = [state.identity, keys, measures.new_tokens, study.manner]
    depends_on += [study.judge, measures.sizes, measures.draws, study.seed]
    found: dict[str, Cut] = {}

    def make_untouched(folder: Path) -> None:
        Cut(shown(state)).write(folder / _FILE)

    name = f"{FRONTIER}/{UNTOUCHED}"
    found[UNTOUCHED] = Cut.read(state.run.stage(name, depends_on, make_untouched) / _FILE)
    for name, (choice, seed) in study.adapters.items():

        def make(folder: Path, name: str = name, choice: str = choice, seed: int = seed) -> None:
            adapter = adapters.open(name)
            used = max(len(ids) for ids in adapter.support())
            sizes = [m for m in measures.sizes if m < used]
            draws = measures.draws if choice == DENSE else 0
            total = 1 + len(sizes) * (1 + draws)
            with state.reporter.bar(f"cutting down {name}", total, "answers") as advance:

                def counted(cut: LatentAdapter) -> list[bool]:
                    found = shown(state, cut)
                    advance(1)
                    return found

                whole = counted(adapter)
                cuts = {m: counted(adapter.cut(m, m)) for m in sizes}
                random = {
                    m: [counted(_at_random(adapter, m, seed, draw)) for draw in range(draws)]
                    for m in sizes
                    if draws
                }
            Cut(whole, cuts, random).write(folder / _FILE)

        stage = state.run.stage(f"{FRONTIER}/{name}", depends_on, make, f"adapters/{name}")
        found[name] = Cut.read(stage / _FILE)
    return found


def _at_random(adapter: LatentAdapter, most: int, seed: int, draw: int) -> LatentAdapter:
    """The adapter with latents of its own drawn at random."""
    random = generator(seed, "drawn latents", most, draw)
    sides = [ids[torch.randperm(len(ids), generator=random)[:most]] for ids in adapter.support()]
    return adapter.keeping(*(side.sort().values for side in sides))
