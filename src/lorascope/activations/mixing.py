"""Rows in a new random order every epoch, in bounded memory, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, count
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.massive import Levelling
from lorascope.errors import InputError, kind_of
from lorascope.randomness import generator

WINDOW = 262144


class Rows(Protocol):
    """Rows that can be read in chunks, again and again, in any order of chunks."""

    @property
    def d_model(self) -> int: ...

    @property
    def sizes(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]: ...


class TensorRows:
    """Rows in memory behind the same interface as rows on disk."""

    def __init__(self, rows: Float[Tensor, "rows d"]) -> None:
        self.rows = rows

    @property
    def d_model(self) -> int:
        return self.rows.shape[1]

    @property
    def sizes(self) -> Sequence[int]:
        return [len(self.rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        del order  # one chunk has one order
        yield self.rows


def as_rows(rows: Rows | Tensor) -> Rows:
    """Rows behind one interface, wherever they are.

    Raises:
        InputError: no floating-point tensor [rows, d_model] and nothing like it on disk.
    """
    if isinstance(rows, Tensor):
        if rows.ndim != 2 or not rows.is_floating_point():
            raise InputError(
                f"rows is a tensor of shape {tuple(rows.shape)} and type {rows.dtype}: give "
                "floating-point rows [rows, d_model]"
            )
        return TensorRows(rows)
    if not all(hasattr(rows, name) for name in ("chunks", "sizes", "d_model")):
        one = (
            f'rows is {kind_of(rows)}: give a tensor [rows, d_model], or what deltas(…)["{{}}"] is'
        )
        raise InputError(one.format(next(iter(rows), "") if isinstance(rows, dict) else "layers.5"))
    return rows


class Levelled:
    """Rows with what is massive in them taken down, behind the same interface; float32."""

    def __init__(self, rows: Rows, levelling: Levelling) -> None:
        self._rows, self._levelling = rows, levelling

    @property
    def d_model(self) -> int:
        return self._rows.d_model

    @property
    def sizes(self) -> Sequence[int]:
        return self._rows.sizes

    def __len__(self) -> int:
        return len(self._rows)

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        for chunk in self._rows.chunks(order):
            yield self._levelling.level(chunk)


class Feed:
    """Endless batches for any number of takers who read the same rows at the same pace.

    Chunks are read in a new order each epoch and gathered into windows; each taker mixes the rows
    of a window in an order of its own. A window is read once for all of them, and where all rows
    fit into one it stays in memory. Every row comes out once an epoch but for the few that fill
    no batch at a window's end. Order follows from seed and step number alone, so a taker can begin
    at any step and gets what it would have got.

    Args:
        rows: what is read.
        batch: rows a batch.
        window: rows mixed with one another; at most one chunk more.
        device: where windows are held.

    Raises:
        ValueError: there are fewer rows than a batch holds.
    """

    def __init__(
        self,
        rows: Rows,
        batch: int,
        window: int = WINDOW,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(rows) < batch:
            raise ValueError(f"{len(rows)} rows do not fill one batch of {batch}")
        self._rows, self._batch, self._device = rows, batch, device
        self._window = max(window, batch)
        self._held: tuple[tuple[int, ...], Tensor] | None = None

    def batches(self, seed: int, start: int = 0) -> Iterator[Float[Tensor, "batch d"]]:
        """The batches of one taker from step `start` on."""
        step = 0
        for epoch in count():
            for number, chunks in enumerate(self._windows(epoch)):
                full = sum(self._rows.sizes[i] for i in chunks) // self._batch
                if step + full > start:
                    window = self._read(chunks)
                    order = torch.randperm(
                        len(window), generator=generator(seed, "order", epoch, number)
                    ).to(window.device)
                    for index in range(max(0, start - step), full):
                        taken = order[index * self._batch : (index + 1) * self._batch]
                        yield window.index_select(0, taken)
                step += full

    def _windows(self, epoch: int) -> list[tuple[int, ...]]:
        """The chunks of each window of an epoch."""
        sizes = self._rows.sizes
        if len(self._rows) <= self._window:
            return [tuple(range(len(sizes)))]
        order = torch.randperm(len(sizes), generator=generator(epoch, "chunks")).tolist()
        ends = accumulate(sizes[chunk] for chunk in order)
        windows: list[list[int]] = [[]]
        filled = 0
        for chunk, end in zip(order, ends, strict=True):
            windows[-1].append(chunk)
            if end - filled >= self._window:
                windows.append([])
                filled = end
        # What is left at the end joins the window before it, whatever its size.
        last = windows.pop()
        windows[-1].extend(last)
        return [tuple(window) for window in windows]

    def _read(self, chunks: tuple[int, ...]) -> Float[Tensor, "rows d"]:
        if self._held is None or self._held[0] != chunks:
            self._held = None  # two windows at once would need twice the memory
            parts = list(self._rows.chunks(chunks))
            joined = parts[0] if len(parts) == 1 else torch.cat(parts)
            self._held = (chunks, joined.to(self._device))
        return self._held[1]
