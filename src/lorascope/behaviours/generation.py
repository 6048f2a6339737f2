"""What a model answers: greedy, many prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.models.load import padding_id


@dataclass(frozen=True)
class Completion:
    """An answer without special tokens; `ended`: whether the model ended it itself."""

    text: str
    ended: bool


def answers(
    module: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int = 24,
    batch: int = 64,
    advance: Callable[[int], object] | None = None,
) -> list[str]:
    """The texts of `completions`."""
    found = completions(
        module, tokenizer, prompts, new_tokens=new_tokens, batch=batch, advance=advance
    )
    return [completion.text for completion in found]


@torch.no_grad()
def completions(
    module: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int = 24,
    batch: int = 64,
    advance: Callable[[int], object] | None = None,
) -> list[Completion]:
    """The greedy answer to each prompt, in the order given.

    Prompts of like length share a batch, padded on the left. Hooks that are attached stay on; the
    module's modes are put back.

    Args:
        module: a causal language model as transformers or PEFT make it.
        prompts: token ids, each with whatever opens the assistant's turn.
        new_tokens: most tokens of an answer.
        advance: told how many prompts each batch answered.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    found: dict[int, Completion] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    try:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            written = _one_batch(module, tokenizer, [prompts[i] for i in chosen], new_tokens)
            found.update(zip(chosen, written, strict=True))
            if advance is not None:
                advance(len(chosen))
    finally:
        for part, mode in modes:
            part.training = mode
    return [found[index] for index in range(len(prompts))]


def _one_batch(
    module: nn.Module, tokenizer: Any, prompts: list[Sequence[int]], new_tokens: int
) -> list[Completion]:
    device = next(module.parameters()).device
    padding, width = padding_id(tokenizer), max(map(len, prompts))
    ids = torch.full((len(prompts), width), padding)
    attended = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attended[row, width - len(prompt) :] = 1
    out: Tensor = module.generate(  # type: ignore[operator]
        input_ids=ids.to(device),
        attention_mask=attended.to(device),
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=padding,
    )
    written = out[:, width:].tolist()
    ending = module.generation_config.eos_token_id  # type: ignore[union-attr]
    endings = {tokenizer.eos_token_id, *(ending if isinstance(ending, list) else [ending])}
    texts: list[str] = tokenizer.batch_decode(written, skip_special_tokens=True)
    return [
        Completion(text.strip(), bool(endings & set(ids)))
        for text, ids in zip(texts, written, strict=True)
    ]
