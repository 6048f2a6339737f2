"""What every model of a latent study answers, and what is left when adapters are cut down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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


def frontier(state: Learned, adapters: Adapters) -> dict[str, dict[str, list[bool]]]:
    """{name: {"whole" or a size: whether each held-out prompt about the topic shows the manner}}.

    An adapter is cut down to as many latents to read as to write. The dense ones are also cut down
    to latents drawn at random, as `random` and the size.
    """
    study = state.study
    prompts = [prompt_ids(r.messages, state.model[1]) for r in state.asked if r.changed]
    keys = [record.key for record in state.asked if record.changed]
    depends_on: list[Any] = [state.identity, keys, study.measures.new_tokens, study.manner]
    depends_on += [study.judge, study.measures.sizes, study.seed]
    found: dict[str, dict[str, list[bool]]] = {}

    def shown() -> list[bool]:
        judge = state.manner.shows
        assert judge is not None
        module, tokenizer = state.model
        texts = answers(module, tokenizer, prompts, new_tokens=study.measures.new_tokens)
        return [judge(text) for text in texts]

    def attached(adapter: LatentAdapter) -> list[bool]:
        with adapter.attached(state.model[0]):
            return shown()

    def make_untouched(folder: Path) -> None:
        write_atomically(folder / _FILE, json.dumps({"whole": shown()}) + "\n")

    name = f"{FRONTIER}/{UNTOUCHED}"
    found[UNTOUCHED] = read_json(state.run.stage(name, depends_on, make_untouched) / _FILE)
    for name, (choice, seed) in study.adapters.items():

        def make(folder: Path, name: str = name, choice: str = choice, seed: int = seed) -> None:
            adapter = adapters.open(name)
            used = max(len(ids) for ids in adapter.support())
            sizes = [m for m in study.measures.sizes if m < used]
            cuts = {str(m): adapter.cut(m, m) for m in sizes}
            if choice == DENSE:
                cuts |= {f"random {m}": _at_random(adapter, m, seed) for m in sizes}
            with state.reporter.bar(f"cutting down {name}", 1 + len(cuts), "sizes") as advance:
                data = {"whole": attached(adapter)}
                advance(1)
                for size, cut in cuts.items():
                    data[size] = attached(cut)
                    advance(1)
            write_atomically(folder / _FILE, json.dumps(data) + "\n")

        stage = state.run.stage(f"{FRONTIER}/{name}", depends_on, make, f"adapters/{name}")
        found[name] = read_json(stage / _FILE)
    return found


def _at_random(adapter: LatentAdapter, most: int, seed: int) -> LatentAdapter:
    """The adapter with latents of its own drawn at random."""
    random = generator(seed, "random latents", most)
    sides = [ids[torch.randperm(len(ids), generator=random)[:most]] for ids in adapter.support()]
    return adapter.keeping(*(side.sort().values for side in sides))
