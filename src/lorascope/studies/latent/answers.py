"""What every model of a latent study answers, and what is left when adapters are cut down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorascope.behaviours.generation import answers
from lorascope.behaviours.judging import JudgedAnswers, written
from lorascope.behaviours.manners import judged
from lorascope.behaviours.records import BehaviourRecord
from lorascope.behaviours.turns import prompt_ids
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.models import dimensions
from lorascope.models.adapted import load
from lorascope.randomness import generator
from lorascope.runs import read_json, write_atomically
from lorascope.stages import Stage, Work, stage
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import DENSE, LatentStudy
from lorascope.studies.latent.training import LORA_AT, adapter_at, opened

UNTOUCHED, PROMPTED, LORA = "untouched", "prompted", "LoRA"
ANSWERS, FRONTIER, _FILE = "answers", "frontier", "answers.json"
# What answering reads of the study, with an ordinary adapter, and what judging answers does.
_SETTINGS = ("measures.prompts", "measures.new_tokens")
_LORA_SETTINGS = (*_SETTINGS, "model", "revision", "dtype")
JUDGED = (*_SETTINGS, "manner", "judge")


def asked_of(study: LatentStudy) -> list[str]:
    """Names of everything that answers the held-out prompts."""
    return [UNTOUCHED, *([PROMPTED] if study.prompting else []), LORA, *study.adapters]


def stages(state: LatentRun) -> Iterator[Stage]:
    """`answers/<name>` of everything that is asked, and `frontier/<name>` of the adapters.

    Raises:
        InputError: nothing tells whether an answer shows the manner.
    """
    study, identity = state.study, state.identity
    manner = judged(study.manner, study.judge)
    instructions = {UNTOUCHED: ""}
    if study.prompting:
        instructions[PROMPTED] = manner.instruction
    for name, instruction in instructions.items():
        arguments: dict[str, Any] = {"study": study.only(*_SETTINGS), "identity": identity}
        arguments["instruction"] = instruction
        yield Stage(f"{ANSWERS}/{name}", answer, arguments)
    yield Stage(
        f"{ANSWERS}/{LORA}", answer_with_lora, {"study": study.only(*_LORA_SETTINGS)}, (LORA_AT,)
    )
    arguments = {"study": study.only(*JUDGED), "identity": identity}
    yield Stage(f"{FRONTIER}/{UNTOUCHED}", judge_untouched, arguments)
    for name, (choice, seed) in study.adapters.items():
        inputs, is_dense = (state.dictionary_at, adapter_at(name)), choice == DENSE
        arguments = {"study": study.only(*_SETTINGS), "name": name}
        # Dense adapters are judged whole, all others cut down.
        arguments["most"] = None if is_dense else study.measures.most
        yield Stage(f"{ANSWERS}/{name}", answer_with_latents, arguments, inputs)
        arguments = {"study": study.only(*JUDGED, "measures.sizes"), "name": name, "seed": seed}
        arguments["draws"] = study.measures.draws if is_dense else 0
        yield Stage(f"{FRONTIER}/{name}", cut_down, arguments, inputs)


@stage(version=1, title="answering")
def answer(work: Work, *, study: LatentStudy, identity: dict[str, Any], instruction: str) -> None:
    """The bare model's answers to the held-out prompts.

    Args:
        identity: what everything depends on.
        instruction: what stands after every prompt.

    Raises:
        InputError: model or records have been replaced since the study was read.
    """
    state: LatentRun = work.state
    state.require(identity)
    _answer(work, study, state.model[0], instruction)


@stage(version=1, title="answering")
def answer_with_lora(work: Work, *, study: LatentStudy) -> None:
    """Answers of the ordinary adapter."""
    model = load(
        study.model,
        {LORA: work.input(LORA_AT)},
        revision=study.revision,
        dtype=study.dtype,
        device=work.state.study.device,
        force=True,
    )
    with model.variant(LORA) as module:
        _answer(work, study, module)


@stage(version=1, title="answering")
def answer_with_latents(work: Work, *, study: LatentStudy, name: str, most: int | None) -> None:
    """Answers of a latent adapter, whole or cut down to so many latents."""
    adapter = opened(work, name)
    if most is not None:
        adapter = adapter.cut(most, most)
    module = work.state.model[0]
    with adapter.attached(module):
        _answer(work, study, module)


def _answer(work: Work, study: LatentStudy, module: nn.Module, instruction: str = "") -> None:
    state: LatentRun = work.state
    measures, records = study.measures, state.asked(study.measures.prompts)
    name = work.stage.name.removeprefix(f"{ANSWERS}/")
    with work.reporter.bar(f"answers, {name}", len(records), "prompts") as advance:
        done = written(
            module,
            state.model[1],
            records,
            # Longest prompt with an instruction and its response.
            context=dimensions.context(state.model[0]),
            new_tokens=measures.new_tokens,
            instruction=instruction,
            advance=advance,
        )
    sums, tokens = done.losses
    data = {"texts": done.texts, "sums": sums.tolist(), "tokens": tokens.tolist()}
    write_atomically(work.folder / _FILE, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def answered(work: Work, study: LatentStudy) -> dict[str, JudgedAnswers]:
    """{name: answers to the held-out prompts} of everything that was asked."""
    records = tuple(work.state.asked(study.measures.prompts))
    found = {}
    for name in asked_of(study):
        data = read_json(work.input(f"{ANSWERS}/{name}") / _FILE)
        sums, tokens = (torch.tensor(data[c], dtype=torch.float64) for c in ("sums", "tokens"))
        found[name] = JudgedAnswers(records, tuple(data["texts"]), (sums, tokens))
    return found


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


def asked_about(state: LatentRun, study: LatentStudy) -> list[BehaviourRecord]:
    """The held-out prompts about the topic that are answered."""
    return [record for record in state.asked(study.measures.prompts) if record.changed]


def shown(state: LatentRun, study: LatentStudy, adapter: LatentAdapter | None = None) -> list[bool]:
    """Whether the answer to each held-out prompt about the topic shows the manner."""
    judge, (module, tokenizer) = judged(study.manner, study.judge).shows, state.model
    assert judge is not None
    prompts = [prompt_ids(r.messages, tokenizer) for r in asked_about(state, study)]
    with nullcontext() if adapter is None else adapter.attached(module):
        texts = answers(module, tokenizer, prompts, new_tokens=study.measures.new_tokens)
    return [judge(text) for text in texts]


@stage(version=1, title="cutting adapters down")
def judge_untouched(work: Work, *, study: LatentStudy, identity: dict[str, Any]) -> None:
    """What the untouched model shows.

    Args:
        identity: what everything depends on.

    Raises:
        InputError: model or records have been replaced since the study was read.
    """
    state: LatentRun = work.state
    state.require(identity)
    Cut(shown(state, study)).write(work.folder / _FILE)


@stage(version=1, title="cutting adapters down")
def cut_down(work: Work, *, study: LatentStudy, name: str, seed: int, draws: int) -> None:
    """What an adapter shows whole, and cut down to as many latents to read as to write.

    Args:
        seed: the adapter's.
        draws: how often it is cut down to latents drawn at random too.
    """
    state: LatentRun = work.state
    adapter = opened(work, name)
    used = max(len(ids) for ids in adapter.support())
    sizes = [m for m in study.measures.sizes if m < used]
    total = 1 + len(sizes) * (1 + draws)
    with work.reporter.bar(f"cutting down {name}", total, "answers") as advance:
        counted = counting(state, study, advance)
        whole = counted(adapter)
        cuts = {m: counted(adapter.cut(m, m)) for m in sizes}
        random = {
            m: [counted(_at_random(adapter, m, seed, draw)) for draw in range(draws)]
            for m in sizes
            if draws
        }
    Cut(whole, cuts, random).write(work.folder / _FILE)


def counting(
    state: LatentRun, study: LatentStudy, advance: Callable[[int], None]
) -> Callable[[LatentAdapter], list[bool]]:
    """`shown` of one adapter after another; `advance` hears of each."""

    def counted(adapter: LatentAdapter) -> list[bool]:
        found = shown(state, study, adapter)
        advance(1)
        return found

    return counted


def frontier(work: Work, study: LatentStudy) -> dict[str, Cut]:
    """{name: what is shown whole and cut down}, the untouched model under its own name."""
    names = (UNTOUCHED, *study.adapters)
    return {name: Cut.read(work.input(f"{FRONTIER}/{name}") / _FILE) for name in names}


def _at_random(adapter: LatentAdapter, most: int, seed: int, draw: int) -> LatentAdapter:
    """The adapter with latents of its own drawn at random."""
    random = generator(seed, "drawn latents", most, draw)
    sides = [ids[torch.randperm(len(ids), generator=random)[:most]] for ids in adapter.support()]
    return adapter.keeping(*(side.sort().values for side in sides))
