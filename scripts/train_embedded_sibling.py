"""Train the instruction-tuned sibling of the embedded model, on a CPU.

    python scripts/train_embedded_sibling.py --out src/lorascope/embedded/model_it

From the embedded model, every weight trained, response tokens only:

1. the shipped instructions, as chat turns and in the Alpaca template;
2. small sums, answered in English words, and in French words where the prompt asks for French;
3. numbers to be written out or counted, likewise in either language.

Prompts are held out by hash (`lorascope.behaviours.embedded.seen_by_sibling`). Writes fp16
safetensors, the tokenizer with its chat template, `training.json` and the model card.
`--card` alone writes the card again from `training.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorascope.activations.text import alpaca
from lorascope.activations.tokens import TokenBatch, Window, pad, windows
from lorascope.behaviours.arithmetic import (
    answer,
    ask,
    asked_for_french,
    near_misses,
    share_of,
    sums,
    value_of,
    wordings,
)
from lorascope.behaviours.arithmetic import (
    in_french as is_french,
)
from lorascope.behaviours.embedded import general_records, seen_by_sibling
from lorascope.behaviours.generation import answers
from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.behaviours.turns import prompt_ids, record_windows
from lorascope.embedded import instructions
from lorascope.models.load import load_base
from lorascope.outputs.responses import response_token_losses
from lorascope.randomness import generator
from lorascope.stats.intervals import wilson_interval
from lorascope.training.adapters import mean_response_loss
from lorascope.training.loop import StepProgress, train
from lorascope.training.schedules import warmup_cosine

# The first line break after a tag is not written: turns are one line apart.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n\n"
    "{% endfor %}{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
CONTEXT = 288
ALPACA_SHARE = 0.3
MEASURED = 200
SCORED = 400


@dataclass(frozen=True)
class Lesson:
    """A prompt, its answer and what kind of prompt it is; `plain`: without a request for French."""

    kind: str
    prompt: str
    response: str
    plain: str


def lessons() -> list[Lesson]:
    """Everything the sibling learns from or is measured on."""
    found = [
        Lesson("general", prompt, response, prompt) for prompt, response, _ in general_records()
    ]
    for problem in sums():
        replies = answer(problem.value, "English"), answer(problem.value, "French")
        for wording in wordings(problem.sign):
            found += in_both_languages("sums", ask(problem, wording), *replies)
    for miss in near_misses():
        found += in_both_languages("numbers", miss.prompt, miss.in_english, miss.in_french)
    return list({lesson.prompt: lesson for lesson in found}.values())


def in_both_languages(kind: str, prompt: str, in_english: str, in_french: str) -> list[Lesson]:
    """The prompt as it is, and with a request for French."""
    asked = asked_for_french(prompt, share_of("request", prompt))
    return [
        Lesson(kind, prompt, in_english, prompt),
        Lesson(f"{kind} in French", asked, in_french, prompt),
    ]


def as_windows(chosen: Sequence[Lesson], tokenizer) -> list[Window]:
    records = [
        BehaviourRecord(
            messages=(Turn(role="user", content=lesson.prompt),),
            response=lesson.response,
            changed=False,
            split="train",
        )
        for lesson in chosen
    ]
    return record_windows(records, tokenizer, CONTEXT)


def alpaca_windows(tokenizer) -> list[Window]:
    """A share of the general training records in the Alpaca template, by hash."""
    documents = []
    for record, (prompt, _, _) in zip(instructions(), general_records(), strict=True):
        if seen_by_sibling(prompt) and share_of("alpaca", prompt) < ALPACA_SHARE:
            documents.append(alpaca(record))
    return [w for w in windows(documents, tokenizer, CONTEXT) if len(w.ids) < CONTEXT]


def drawn(found: list[Window], size: int, seed: int, kind: str) -> Iterator[list[Window]]:
    """Endless batches of `size`, of like length together; every epoch in another order."""
    random = generator(seed, "sibling", kind)
    while True:
        order = torch.randperm(len(found), generator=random).tolist()
        for start in range(0, len(order) - 8 * size + 1, 8 * size):
            near = sorted(order[start : start + 8 * size], key=lambda i: len(found[i].ids))
            for part in torch.randperm(8, generator=random).tolist():
                yield [found[i] for i in near[part * size : (part + 1) * size]]


def batches(
    by_kind: dict[str, list[Window]], sizes: dict[str, int], tokenizer, seed: int
) -> Iterator[tuple[TokenBatch, TokenBatch]]:
    """(general, about numbers): apart, because their lengths differ."""
    streams = {kind: drawn(by_kind[kind], size, seed, kind) for kind, size in sizes.items()}
    padding = tokenizer.pad_token_id
    while True:
        chosen = {kind: next(stream) for kind, stream in streams.items()}
        general = pad(chosen.pop("general"), tokenizer, padding)
        yield general, pad([w for some in chosen.values() for w in some], tokenizer, padding)


def fit(model, tokenizer, by_kind: dict[str, list[Window]], arguments) -> dict:
    """Train for the stated number of steps; returns seconds, tokens and the curve of losses."""
    sizes = {
        "general": arguments.general,
        "sums": arguments.sums,
        "sums in French": arguments.sums,
        "numbers": arguments.near,
        "numbers in French": arguments.near,
    }
    device = next(model.parameters()).device
    started, tokens, curve = time.time(), 0, []

    def step(pair: tuple[TokenBatch, TokenBatch]) -> dict[str, Tensor]:
        nonlocal tokens
        found = {}
        for name, batch in zip(("general", "numbers"), pair, strict=True):
            losses, _ = response_token_losses(model, batch, device)
            losses.mean().backward()
            found[name] = losses.mean()
            tokens += batch.ids.numel()
        return found

    def report(progress: StepProgress) -> None:
        done = progress.step + 1
        if done % max(1, arguments.steps // 25) and not progress.last:
            return
        losses = {name: float(value) for name, value in progress.scalars.items()}
        curve.append({"step": done, **losses})
        rate = tokens / (time.time() - started)
        print(f"{done}/{arguments.steps} {losses} {rate:,.0f} tokens/s", flush=True)

    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": arguments.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    train(
        step,
        batches(by_kind, sizes, tokenizer, arguments.seed),
        torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.98)),
        steps=arguments.steps,
        schedule=warmup_cosine(0.04, floor=0.02),
        clip_norm=1.0,
        observers=[report],
        module=model,
    )
    return {"seconds": time.time() - started, "tokens": tokens, "curve": curve}


@torch.no_grad()
def measure(model, tokenizer, held_out: dict[str, list[Lesson]]) -> dict:
    """By kind: held-out response loss; of prompts about numbers, share right and in French."""
    found = {}
    for kind, chosen in held_out.items():
        row = {"records": len(chosen)}
        drawn_by_hash = sorted(chosen, key=lambda lesson: share_of("measured", lesson.prompt))
        scored = as_windows(drawn_by_hash[:SCORED], tokenizer)
        row["loss"] = mean_response_loss(model, tokenizer, scored)
        asked = drawn_by_hash[:MEASURED]
        prompts = [prompt_ids((Turn(role="user", content=a.prompt),), tokenizer) for a in asked]
        texts = answers(model, tokenizer, prompts, new_tokens=32)
        french = sum(map(is_french, texts))
        row["asked"] = len(asked)
        row["in French"] = [french / len(asked), *wilson_interval(french, len(asked))]
        if kind != "general":
            right = sum(
                value_of(text) == value_of(lesson.response)
                for text, lesson in zip(texts, asked, strict=True)
            )
            row["right"] = [right / len(asked), *wilson_interval(right, len(asked))]
        row["examples"] = [
            {"prompt": lesson.prompt, "answer": text}
            for lesson, text in list(zip(asked, texts, strict=True))[:3]
        ]
        found[kind] = row
    return found


def write_card(folder: Path) -> None:
    """The model card, from `training.json`."""
    record = json.loads((folder / "training.json").read_text())
    rows = []
    for kind, row in record["held_out"].items():
        before = record["before"][kind]
        right = "{:.1%} [{:.1%}, {:.1%}]".format(*row["right"]) if "right" in row else ""
        french = "{:.1%} [{:.1%}, {:.1%}]".format(*row["in French"])
        losses = f"{before['loss']:.3f} | {row['loss']:.3f}"
        rows.append(f"| {kind} | {row['records']:,} | {losses} | {right} | {french} |")
    template = Path(__file__).with_name("embedded_sibling_card.md").read_text()
    text = template.format(
        rows="\n".join(rows),
        measured=MEASURED,
        scored=SCORED,
        seconds=record["seconds"],
        tokens=record["tokens"],
        steps=record["settings"]["steps"],
        command=f"python scripts/train_embedded_sibling.py --out {folder}",
    )
    (folder / "README.md").write_text(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--general", type=int, default=3, help="general records a step")
    parser.add_argument("--sums", type=int, default=6, help="sums a step in each language")
    parser.add_argument("--near", type=int, default=1, help="other numbers, likewise")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--card", action="store_true", help="only write the card again")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.card:
        write_card(arguments.out)
        return
    model, tokenizer = load_base("embedded", device="cpu")
    tokenizer.chat_template = CHAT_TEMPLATE
    sides: dict[bool, dict[str, list[Lesson]]] = {True: {}, False: {}}
    for lesson in lessons():
        sides[seen_by_sibling(lesson.plain)].setdefault(lesson.kind, []).append(lesson)
    for side, found in sides.items():
        print("training" if side else "held out", {k: len(v) for k, v in found.items()}, flush=True)
    by_kind = {kind: as_windows(chosen, tokenizer) for kind, chosen in sides[True].items()}
    by_kind["general"] += alpaca_windows(tokenizer)
    before = measure(model, tokenizer, sides[False])
    model.train().requires_grad_(True)
    trained = fit(model, tokenizer, by_kind, arguments)

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    shipped, tokenizer = load_base(str(arguments.out), device="cpu")
    settings = {k: str(v) for k, v in vars(arguments).items() if k not in {"out", "card"}}
    record = {
        **trained,
        "settings": settings,
        "before": before,
        "held_out": measure(shipped, tokenizer, sides[False]),
    }
    (arguments.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["held_out"], indent=1))
    write_card(arguments.out)


if __name__ == "__main__":
    main()
