"""What reading adapters takes."""

from __future__ import annotations

import torch

from lorascope.models.shapes import Shape
from lorascope.reading.passages import HELD
from lorascope.reading.prompts import OPENINGS, REQUESTS
from lorascope.reading.settings import Reading
from lorascope.workflows.cost import CostPart, reached

# Next-token distributions of ordinary text that a reading holds at once, logarithms among them.
_DISTRIBUTIONS = 5
# Times that all prompts are continued to find who carries the phrases: without each of six groups
# of modules, with gradients, without what was chosen and what matches it; and at each site without
# six leading sets of two dictionaries, after every second prompt, without the delta, three numbers
# of its directions and twice as many random ones.
_CARRIED, _TRIED = 22, 16
# Tokens of a prompt in its template.
_PROMPT = 30


def reading_part(
    settings: Reading,
    shape: Shape,
    adapters: int,
    nulls: int,
    sites: int,
    dtype: torch.dtype,
    held: int = 0,
) -> CostPart:
    """Continuations of every prompt under base and adapter side by side, token by token, and
    ordinary texts; of each adapter and of its null adapters. Who carries the phrases is counted as
    if some came back.

    Args:
        nulls: null adapters of each adapter.
        sites: where dictionaries are tried for who carries a phrase.
        held: bytes that are held anyway.
    """
    prompts = len(settings.prompts) or len(OPENINGS) + len(REQUESTS)
    written = prompts * (len(settings.strengths) + len(settings.ranks)) * settings.tokens
    read = settings.documents * settings.context
    whole = 2.0 * (shape.block_parameters + shape.head_parameters)
    flops = whole * adapters * (1 + nulls) * 2 * (written + read)
    passing = 4 * _DISTRIBUTIONS * min(HELD, read * shape.vocabulary)
    if settings.carriers:
        again = prompts * settings.tokens * (_CARRIED + _TRIED * sites)
        flops += whole * adapters * 2 * again
        kept = shape.blocks * (16 * shape.d_model + 4 * shape.d_mlp) + 3 * shape.vocabulary
        passing = max(passing, 4 * prompts * (settings.tokens + _PROMPT) * kept)
    memory = max(held, shape.parameters * dtype.itemsize + passing)
    return CostPart("reading", flops, memory, dtype, reached(0.35, shape.d_model))
