"""Time the continuations of `lorascope read` all together against one condition after the other.

    python bench/reading.py                          # the embedded model, seconds
    python bench/reading.py --model smollm2.gguf     # any model

Both sides take turns in one run on the same model, an adapter of random factors on every linear map
of the blocks, its null adapters, and the shipped prompts. Obvious: each condition by itself with
the rows of the base that it is held against, one forward pass of either model a token, each with a
cache, texts that have ended included. Ours: `decode` with all conditions. Printed: user seconds
(median over repeats), their ratio, and how many of the texts are the same.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers.cache_utils import DynamicCache

from lorascope.models.adapted import BASE, AdaptedModel, load
from lorascope.models.load import load_base, padding_id
from lorascope.models.null_adapters import add_null_adapters
from lorascope.randomness import generator
from lorascope.reading.decoding import Amplification, amplified, decode
from lorascope.reading.prompts import Prompt, shipped_prompts
from lorascope.reading.settings import Reading

Texts = list[list[list[int]]]


def opened(address: str, folder: Path, size: float) -> AdaptedModel:
    """A model with a random adapter of rank 8."""
    bare, _ = load_base(address, dtype="float32", device="cpu")
    torch.manual_seed(1)
    peft = get_peft_model(bare, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn_like(parameter)
    peft.save_pretrained(folder, save_embedding_layers=False)
    return load(address, {"a": folder}, dtype="float32", device="cpu", force=True)


class _Alone:
    """One variant's rows with their cache."""

    def __init__(self, model: AdaptedModel, variant: str, prompts: list[Prompt]) -> None:
        self._model, self._variant = model, variant
        width = max(len(prompt.ids) for prompt in prompts)
        self._new = torch.full((len(prompts), width), padding_id(model.tokenizer))
        self._attended = torch.zeros_like(self._new)
        for row, prompt in enumerate(prompts):
            self._new[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            self._attended[row, width - len(prompt.ids) :] = 1
        self._cache: DynamicCache | None = None

    def read(self, written: Tensor | None) -> Tensor:
        """Logits after the newest token of each row."""
        if written is not None:
            self._new = written[:, None]
            self._attended = torch.cat([self._attended, torch.ones_like(self._new)], 1)
        with self._model.variant(self._variant) as module:
            self._cache = self._cache or DynamicCache(config=module.config)
            places = (self._attended.cumsum(1) - 1).clamp(min=0)[:, -self._new.shape[1] :]
            logits: Tensor = module(
                input_ids=self._new,
                attention_mask=self._attended,
                position_ids=places,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1].float()


@torch.no_grad()
def obvious(
    model: AdaptedModel, prompts: list[Prompt], conditions: list[Amplification], settings: Reading
) -> Texts:
    """Token ids by prompt and condition."""
    ends, columns = model.tokenizer.eos_token_id, []
    for condition in conditions:
        own = _Alone(model, condition.variant, prompts)
        base = _Alone(model, BASE, prompts) if condition.held_against_base else None
        random = [generator(settings.seed, "decoding", n) for n in range(len(prompts))]
        written: list[Tensor] = []
        for _ in range(settings.tokens):
            latest = written[-1] if written else None
            noise = torch.stack(
                [torch.empty(model.vocab_size).exponential_(generator=r) for r in random]
            )
            beside = base.read(latest) if base is not None else None
            scores = amplified(own.read(latest), beside, condition.strength, settings.floor)
            written.append((scores / settings.temperature - noise.log()).argmax(1))
        columns.append(torch.stack(written, 1).tolist())
    cut = [[row[: [*row, ends].index(ends)] for row in rows] for rows in columns]
    return [list(rows) for rows in zip(*cut, strict=True)]


def ours(
    model: AdaptedModel, prompts: list[Prompt], conditions: list[Amplification], settings: Reading
) -> Texts:
    """The same by the package."""
    return decode(model, prompts, conditions, settings)


Side = Callable[[AdaptedModel, list[Prompt], list[Amplification], Reading], Texts]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded", help="as lorascope read takes it")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--nulls", type=int, default=3)
    parser.add_argument("--size", type=float, default=0.02, help="of the adapter's random factors")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    versions = f"lorascope {metadata.version('lorascope')}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    print(
        f"{versions}, Python {platform.python_version()}, {platform.machine()}, {threads} threads"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = opened(given.model, Path(folder), given.size)
        nulls = add_null_adapters(model, "a", given.nulls, 0)
        prompts = shipped_prompts(model.tokenizer)
        conditions = [Amplification(BASE)]
        conditions += [Amplification(v, a) for v in ("a", *nulls) for a in (0.0, 2.0)]
        sides: list[Side] = [obvious, ours]
        seconds: list[list[float]] = [[], []]
        texts: list[Texts] = [[], []]
        for _ in range(given.repeats):
            for number, side in enumerate(sides):
                started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
                texts[number] = side(model, prompts, conditions, Reading(tokens=given.tokens))
                now = resource.getrusage(resource.RUSAGE_SELF).ru_utime
                seconds[number].append(now - started)
    first, second = map(statistics.median, seconds)
    pairs = list(zip(*([one for row in found for one in row] for found in texts), strict=True))
    same = sum(a == b for a, b in pairs)
    print(f"{len(prompts)} prompts, {len(conditions)} conditions, {given.tokens} tokens")
    print(f"obvious {first:.2f} s, ours {second:.2f} s, ×{first / second:.2f}")
    print(f"{same} of {len(pairs)} texts the same")


if __name__ == "__main__":
    main()
