"""Stretches of text around a row, token by token, with one latent's activation on each."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lorascope.activations.tokens import token_text
from lorascope.measures.features import Activity, LatentExample
from lorascope.report.latents import rounded

# Tokens before and after the one shown.
AROUND, LITTLE_AROUND = (18, 8), (8, 4)
# Activations in a passage are given in this many steps up to the latent's largest.
STEPS = 99
# Tokens read before one so that it is decoded as within its text.
_BEFORE = 4


class Passages:
    """Passages of encoded rows.

    Args:
        token: token id of each row.
        stretch: rows of one stretch follow one another.
        found: the rows' activations.
    """

    def __init__(
        self,
        tokenizer: Any,
        token: Int[Tensor, " rows"],
        stretch: Int[Tensor, " rows"],
        found: Activity,
    ) -> None:
        self._tokenizer, self._found = tokenizer, found
        self._ids = token[: found.rows].tolist()
        _, counts = stretch[: found.rows].unique_consecutive(return_counts=True)
        ends = counts.cumsum(0)
        self._start = torch.repeat_interleave(ends - counts, counts).tolist()
        self._end = torch.repeat_interleave(ends, counts).tolist()
        self.piece = cache(self._alone)
        self._text = cache(self._within)

    def passage(self, latent: int, example: LatentExample, whole: bool) -> dict[str, Any]:
        """The tokens around an example's row, each with the latent's activation in `STEPS`.

        `at` is the place of the row itself.
        """
        before, after = AROUND if whole else LITTLE_AROUND
        first = max(self._start[example.row], example.row - before)
        last = min(self._end[example.row], example.row + after + 1)
        rows, values = self._found.of(latent)
        bounds = torch.searchsorted(rows, torch.tensor([first, last], dtype=rows.dtype)).tolist()
        here = slice(*bounds)
        shades = [0] * (last - first)
        largest = float(values.max())
        for row, value in zip(rows[here].tolist(), values[here].tolist(), strict=True):
            shades[row - first] = max(1, round(value / largest * STEPS))
        return {
            "band": example.band,
            "value": rounded(example.value),
            "at": example.row - first,
            "tokens": [self._text(row) for row in range(first, last)],
            "shades": shades,
        }

    def _within(self, row: int) -> str:
        """A token's text as it stands behind the tokens before it."""
        first = max(self._start[row], row - _BEFORE)
        before, through = (
            self._decoded(self._ids[first:row]),
            self._decoded(self._ids[first : row + 1]),
        )
        if through.startswith(before) and len(through) > len(before):
            return through[len(before) :]
        return self.piece(self._ids[row])

    def _alone(self, token: int) -> str:
        return token_text(self._tokenizer, token)

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))
