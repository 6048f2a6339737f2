"""Which windows each step takes, until a budget of tokens is used up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lorascope.activations.tokens import Window
from lorascope.errors import InputError
from lorascope.randomness import generator

Step = tuple[tuple[int, ...], ...]


def kept_tokens(windows: Sequence[Window], tokenizer: Any) -> list[int]:
    """Tokens of each window that are not special."""
    special = set(tokenizer.all_special_ids)
    return [sum(token not in special for token in window.ids) for window in windows]


def planned(
    sizes: Sequence[int], *, tokens: int, batch: int, accumulate: int, seed: int
) -> list[Step]:
    """For every optimiser step, `accumulate` batches of window numbers.

    Windows come in an order that depends on the seed alone, all of them before any comes again. The
    last step is the one after which the next would exceed the budget.

    Args:
        sizes: tokens of each window that count; windows without any are never taken.
        tokens: the budget.
        batch: windows in one pass.

    Raises:
        InputError: too few windows for a step, or a budget that does not reach for one.
    """
    useful = [number for number, size in enumerate(sizes) if size]
    each = batch * accumulate
    if len(useful) < each:
        raise InputError(
            f"{len(useful)} windows of text are too few for a step of {each}; give more text, or a "
            "smaller batch"
        )
    random = generator(seed, "windows")
    steps: list[Step] = []
    used = 0
    while True:
        order = torch.randperm(len(useful), generator=random).tolist()
        for start in range(0, len(order) - each + 1, each):
            chosen = [useful[i] for i in order[start : start + each]]
            needed = sum(sizes[i] for i in chosen)
            if used + needed > tokens:
                if not steps:
                    raise InputError(
                        f"a budget of {tokens} tokens is smaller than one step, which takes "
                        f"{needed}; give a larger budget, or a smaller batch"
                    )
                return steps
            used += needed
            parts = range(0, each, batch)
            steps.append(tuple(tuple(chosen[i : i + batch]) for i in parts))
