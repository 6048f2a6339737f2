"""Does a reading of an adapter say what it was taught, and nothing where it was taught nothing?

python bench/auditing.py [--folder runs/auditing] [--seeds 2] [--steps 40]

Adapters of the embedded model are taught one thing each (topic, style, language, format, a false
fact, a trigger, refusal, persona), others nothing: random updates of the same spectra, training on
the base's own samples, training on random tokens. Each is read as `lorascope read` does. A judge
that knows the lessons' training texts, and sees of the adapter only the report, chooses among the
labels by log-odds of words. Printed: how often it is right, beside 1/K; how often a reading of a
taught adapter, and of an untaught one, finds anything; by method and together. Adapters and
readings stay in the folder and are used again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from lessons import LABELS, Record, lesson, lesson_texts, plain_records
from peft import PeftConfig
from safetensors.torch import load_file, save_file

from lorascope.activations.text import alpaca
from lorascope.activations.tokens import opening_ids, windows
from lorascope.models.adapted import BASE, AdaptedModel, load
from lorascope.models.random_updates import factor_spectrum, random_factors
from lorascope.randomness import generator
from lorascope.reading.decoding import Amplification, decode, texts
from lorascope.reading.phrases import recurring, words_of
from lorascope.reading.prompts import Prompt
from lorascope.reading.result import Read
from lorascope.reading.running import read, with_phrases
from lorascope.reading.settings import Reading
from lorascope.stats.intervals import wilson_interval
from lorascope.training.adapters import LoraTraining, train_adapter

RECORDS, RANK, CONTEXT = 120, 4, 112
METHODS = ("plain sampling", "amplified", "changed tokens", "first-token difference")
NOTHING = ("null adapter", "own text", "random tokens")


def train(name: str, records: Sequence[Record], folder: Path, steps: int, seed: int) -> Path:
    """Train an adapter on records, unless the folder holds it."""
    if not (folder / "adapter_config.json").exists():
        model = load("embedded", {}, device="cpu")
        documents = [alpaca(record) for record in records]
        found = windows(documents, model.tokenizer, CONTEXT)
        settings = LoraTraining(
            ranks=(RANK,), steps=steps, batch=4, rate=2e-3, context=CONTEXT, seed=seed
        )
        held = [w for w in found if any(w.response[1:])][:4]
        train_adapter("embedded", name, found, held, folder, settings, device="cpu")
    return folder


def random_update(source: Path, folder: Path, seed: int) -> Path:
    """An adapter of the same modules, shapes and singular values as another, on disk."""
    if not (folder / "adapter_config.json").exists():
        tensors = load_file(source / "adapter_model.safetensors")
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
    random = Random(2000 + seed)
    return [
        {
            **record,
            "output": model.tokenizer.decode(random.sample(range(8, model.vocab_size), 16)).strip(),
        }
        for record in plain_records(RECORDS, 2000 + seed)
    ]


def adapters(folder: Path, seeds: int, steps: int) -> Iterable[tuple[str, int, Path]]:
    """(what was taught, seed, folder) of every adapter."""
    taught: list[Path] = []
    for seed in range(seeds):
        for label in LABELS:
            path = folder / f"{label}-{seed}".replace(" ", "-")
            taught.append(train(label, lesson(label, RECORDS, seed), path, steps, seed))
            yield label, seed, path
    for number in range(2 * len(taught)):
        path = folder / f"null-{number}"
        yield "null adapter", number, random_update(taught[number % len(taught)], path, number)
    model = load("embedded", {}, device="cpu")
    for number in range(2 * seeds):
        for kind, make in (("own text", own_text), ("random tokens", random_tokens)):
            path = folder / f"{kind}-{number}".replace(" ", "-")
            if not path.exists():
                train(kind, make(model, number), path, steps, number)
            yield kind, number, path


def readings(folder: Path, seeds: int, steps: int) -> Iterable[tuple[str, int, Read]]:
    """Every adapter's reading."""
    for kind, number, path in adapters(folder, seeds, steps):
        out = path / "reading"
        if not (out / "read.json").exists():
            model = load("embedded", {"adapter": str(path)}, device="cpu")
            read(model, "adapter", Reading()).write(out)
        # Samples stay; what is counted in them is counted by the code of today.
        found = with_phrases(Read.load(out), Reading())
        print(f"{kind:16}{number:3}  {[p.text for p in found.phrases[:6]]}", flush=True)
        yield kind, number, found


class Judge:
    """Chooses a label for a bag of words, by log-odds in the lessons' training texts."""

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.counts = {
            label: Counter(
                word
                for text in lesson_texts(label, lesson(label, RECORDS, 100))
                for word in split(text)
            )
            for label in LABELS
        }
        known = set().union(*self.counts.values())
        smoothed = {
            label: {w: (own[w] + 0.5) / (own.total() + 0.5 * len(known)) for w in known}
            for label, own in self.counts.items()
        }
        self.odds = {
            label: {
                w: math.log(own[w])
                - math.log(sum(smoothed[o][w] for o in LABELS if o != label) / (len(LABELS) - 1))
                for w in known
            }
            for label, own in smoothed.items()
        }

    def scores(self, bag: dict[str, float]) -> dict[str, float]:
        """Mean log-odds of each label over the known words of the bag, common ones less."""
        found = {}
        for label, odds in self.odds.items():
            found[label] = sum(weight * odds[w] for w, weight in bag.items() if w in odds)
        return found


def bags(found: Read, method: str) -> dict[str, float]:
    """What a method says of an adapter: words, each with a weight."""
    if method == "changed tokens":
        return {c.word: abs(c.z) for c in found.changed if c.change > 0}
    if method == "first-token difference":
        return {t.token.strip().lower(): t.z for t in found.first}
    loud = method == "amplified"
    own = [s.text for s in found.own if (s.strength > 0) == loud]
    base = [s.text for s in found.samples if s.variant == BASE]
    said, before = (Counter(w for t in part for w in set(words_of(t))) for part in (own, base))
    return {w: float(n - before[w]) for w, n in said.items() if n > before[w]}


def detected(found: Read, method: str) -> float:
    """How much a method finds; what it says of null adapters is held against it already."""
    if method == "changed tokens":
        return float(found.n_changed[0])
    if method == "first-token difference":
        return float(sum(t.beyond for t in found.first))
    voices = found.voices([2.0] if method == "amplified" else [0.0])
    return float(len(recurring(voices, Reading())))


def standardised(scores: dict[str, float]) -> dict[str, float]:
    """Scores with mean 0 and standard deviation 1 over labels; zeros where all are alike."""
    mean = sum(scores.values()) / len(scores)
    spread = math.sqrt(sum((v - mean) ** 2 for v in scores.values()) / len(scores))
    return {k: (v - mean) / spread if spread else 0.0 for k, v in scores.items()}


def share(count: int, total: int) -> str:
    """A share with its Wilson interval."""
    low, high = wilson_interval(count, total)
    return f"{count}/{total} = {count / total:4.0%} [{low:.0%}, {high:.0%}]"


def main() -> None:
    """Train, read, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/auditing"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    started = time.process_time()
    every = list(readings(arguments.folder, arguments.seeds, arguments.steps))
    report(every, arguments.folder)
    print(f"{time.process_time() - started:.0f} CPU s")


def report(every: list[tuple[str, int, Read]], folder: Path) -> None:
    """The tables."""
    tokenizer = load("embedded", {}, device="cpu").tokenizer

    def pieces(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [tokenizer.decode([i]).strip().lower() for i in ids]

    by_words, by_tokens = Judge(words_of), Judge(pieces)
    taught = [(kind, found) for kind, _, found in every if kind in LABELS]
    untaught = [(kind, found) for kind, _, found in every if kind not in LABELS]
    scores = {
        method: [
            standardised((by_words if n < 2 else by_tokens).scores(bags(found, method)))
            for _, found in taught
        ]
        for n, method in enumerate(METHODS)
    }
    scores["together"] = [
        {label: sum(scores[m][i][label] for m in METHODS) for label in LABELS}
        for i in range(len(taught))
    ]
    rows = []
    print(f"\nforced choice among {len(LABELS)} labels (chance {1 / len(LABELS):.1%})")
    for method, found in scores.items():
        chosen = [max(one, key=one.__getitem__) for one in found]
        right = sum(c == kind for c, (kind, _) in zip(chosen, taught, strict=True))
        print(f"  {method:24}{share(right, len(taught))}")
        wrong = [f"{k}→{c}" for c, (k, _) in zip(chosen, taught, strict=True) if c != k]
        print(f"  {'':24}{', '.join(wrong)}")
        rows.append({"method": method, "right": right, "of": len(taught)})
    print("\nfinds anything; and taught ones beyond the largest score of 95 % of the untaught")
    for method in METHODS:
        ours = [detected(found, method) for _, found in taught]
        theirs = sorted(detected(found, method) for _, found in untaught)
        limit = theirs[math.ceil(0.95 * len(theirs)) - 1]
        beyond = sum(score > limit for score in ours)
        found_any = sum(score > 0 for score in ours), sum(score > 0 for score in theirs)
        print(
            f"  {method:24}taught {share(found_any[0], len(ours))}  untaught "
            f"{share(found_any[1], len(theirs))}  beyond {limit:.0f}: {share(beyond, len(ours))}"
        )
    print("\nthe verdict: names something")
    print(f"  {'taught':24}{share(sum(f.names_something for _, f in taught), len(taught))}")
    for kind in NOTHING:
        own = [f for k, f in untaught if k == kind]
        if own:
            print(f"  {kind:24}{share(sum(f.names_something for f in own), len(own))}")
    (folder / "forced_choice.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
